"""SAM 3's detector with everything that a loss needs: all decoder layers, several prompts over one picture.

Source: `Sam3Model.forward` of transformers 5.23, which returns the last decoder layer only and takes one prompt per
picture. Here the trunk and the neck's coarse level run once per picture, the rest once per prompt, and masks with the
neck's fine levels only where they are wanted: convolutions on them are a third of a training step.
A test holds the last layer equal to the original.
"""

from dataclasses import dataclass, fields
from typing import Any

import torch
from torch import Tensor
from torchvision.ops import box_convert
from transformers.models.sam3.modeling_sam3 import inverse_sigmoid


@dataclass(frozen=True)
class DetectorOutput:
    """What the detector says about P prompts; L decoder layers, Q queries, g x g grid of the trunk.

    Args:
        logits: (L, P, Q).
        boxes: (L, P, Q, 4), xyxy, in units of the image.
        presence_logits: (L, P).
        tokens: (P, g * g, D), the picture after the DETR encoder, row by row.
        masks: (M, Q, 4g, 4g) mask logits of the last layer, for the M prompts whose masks were wanted.
        semantic: (M, 4g, 4g) logits of "any object of the prompt".
    """

    logits: Tensor
    boxes: Tensor
    presence_logits: Tensor
    tokens: Tensor
    masks: Tensor
    semantic: Tensor

    def float(self) -> "DetectorOutput":
        """Return the same in float32, where a half-precision run computes its loss."""
        return DetectorOutput(**{field.name: getattr(self, field.name).float() for field in fields(self)})


def detect(
    model: Any, image: Tensor, input_ids: Tensor, attention_mask: Tensor, image_index: Tensor, with_masks: Tensor
) -> DetectorOutput:
    """Look for P prompts in B pictures.

    Args:
        model: `transformers.Sam3Model`.
        image: (B, 3, S, S), normalised.
        input_ids: (P, T), tokens of each prompt.
        attention_mask: (P, T), 1 where a token is not padding.
        image_index: (P,), the picture that each prompt is about.
        with_masks: (P,), bool: whose masks are computed; they cost more than all the rest behind the trunk.
    """
    encoder = model.vision_encoder
    side = image.shape[-1] // encoder.config.backbone_config.patch_size
    trunk = encoder.backbone(image).last_hidden_state.transpose(1, 2).unflatten(2, (side, -1))  # (B, C, g, g)
    *fine_layers, coarse_layer = encoder.neck.fpn_layers[:3]
    coarse = coarse_layer(trunk)
    features = coarse[image_index]
    positions = encoder.neck.position_encoding(coarse.shape, coarse.device, coarse.dtype)[image_index]
    text = model.get_text_features(input_ids=input_ids, attention_mask=attention_mask, return_dict=True).pooler_output
    text_mask = attention_mask.bool()
    encoded = model.detr_encoder(
        vision_features=[features], text_features=text, vision_pos_embeds=[positions], text_mask=text_mask
    )
    decoded = model.detr_decoder(
        vision_features=encoded.last_hidden_state,
        text_features=encoded.text_features,
        vision_pos_encoding=encoded.pos_embeds_flattened,
        text_mask=text_mask,
        spatial_shapes=encoded.spatial_shapes,
    )
    hidden = decoded.intermediate_hidden_states  # (L, P, Q, D)
    reference = inverse_sigmoid(decoded.reference_boxes)
    boxes = box_convert((reference + model.detr_decoder.box_head(hidden)).sigmoid(), "cxcywh", "xyxy")
    logits = model.dot_product_scoring(
        decoder_hidden_states=hidden, text_features=encoded.text_features, text_mask=text_mask
    ).squeeze(-1)
    chosen = with_masks.nonzero().squeeze(1)
    if len(chosen):
        pictures, row = torch.unique(image_index[chosen], return_inverse=True)
        fine = [layer(trunk[pictures])[row] for layer in fine_layers]
        segmented = model.mask_decoder(
            decoder_queries=hidden[-1][chosen],
            backbone_features=[*fine, coarse[image_index[chosen]]],
            encoder_hidden_states=encoded.last_hidden_state[chosen],
            prompt_features=text[chosen],
            prompt_mask=text_mask[chosen],
        )
        masks, semantic = segmented.pred_masks, segmented.semantic_seg.squeeze(1)
    else:  # data with boxes only
        masks = hidden.new_zeros(0, hidden.shape[2], 4 * side, 4 * side)
        semantic = masks[:, 0]
    return DetectorOutput(
        logits=logits,
        boxes=boxes,
        presence_logits=decoded.presence_logits.squeeze(-1),
        tokens=encoded.last_hidden_state,
        masks=masks,
        semantic=semantic,
    )
