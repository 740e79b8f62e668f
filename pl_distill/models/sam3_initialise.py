"""Starting weights from which a SAM 3 learns in thousands of steps instead of millions: everything looks near itself.

Sources: the trunk's heads start as a convolution's taps (structured initialisation of ViTs, arXiv 2404.01139, here with
rotary positions); the decoder's box bias starts as pooling inside the box, its anchors as a regular grid (Anchor DETR,
arXiv 2109.07107). The functions change numbers only: architecture and forward pass stay transformers' own.
"""

import math
from typing import Any

import torch
from torch import Tensor, nn

RING = 1.5  # tokens from a place to the neighbours that heads look at


@torch.no_grad()
def initialise_detector(model: Any, *, anchor_size: float = 0.2, prior: float = 0.05) -> None:
    """Prepare a `transformers.Sam3Model` of random weights for training from scratch.

    Args:
        model: Changed in place.
        anchor_size: Width and height of the boxes that queries start from, in units of the image: about an object's.
        prior: Score that every query starts with.
    """
    for module in model.modules():
        if isinstance(module, nn.Linear | nn.Conv2d | nn.ConvTranspose2d):
            nn.init.xavier_uniform_(module.weight)
            if module.bias is not None:
                nn.init.zeros_(module.bias)
    for layer in model.vision_encoder.backbone.layers:
        look_nearby(layer.attention, inverse_frequencies=layer.rotary_emb.inv_freq)
    decoder = model.detr_decoder
    _place_anchors(decoder, anchor_size)
    _pool_inside_boxes(decoder.box_rpb_embed_x, decoder.config.num_attention_heads)
    _pool_inside_boxes(decoder.box_rpb_embed_y, decoder.config.num_attention_heads)
    nn.init.zeros_(decoder.box_head.layer3.weight)
    nn.init.zeros_(decoder.box_head.layer3.bias)
    _set_prior(model.dot_product_scoring, prior)


@torch.no_grad()
def initialise_tracker(model: Any) -> None:
    """Prepare the tracker and its neck in a `transformers.Sam3VideoModel` for training from scratch.

    The neck starts as a copy of the detector's, brought to unit scale, so that the tracker sees what the detector sees.

    Args:
        model: Changed in place, except for its detector.
    """
    model.tracker_neck.load_state_dict(model.detector_model.vision_encoder.neck.state_dict())
    _normalise_neck(model)
    tracker = model.tracker_model
    for module in tracker.modules():
        if isinstance(module, nn.Linear | nn.Conv2d | nn.ConvTranspose2d):
            nn.init.xavier_uniform_(module.weight)
            if module.bias is not None:
                nn.init.zeros_(module.bias)
        elif isinstance(module, nn.Embedding):
            nn.init.normal_(module.weight, std=0.5)
    for parameter in (tracker.no_memory_embedding, tracker.memory_temporal_positional_encoding):
        nn.init.normal_(parameter, std=0.1)
    nn.init.normal_(tracker.no_object_pointer, std=0.5)
    if tracker.occlusion_spatial_embedding_parameter is not None:
        nn.init.normal_(tracker.occlusion_spatial_embedding_parameter, std=0.5)
    for part in (tracker.prompt_encoder.mask_embed, tracker.memory_encoder.mask_downsampler):
        for module in part.modules():
            if isinstance(module, nn.Conv2d) and module.bias is not None:
                # a LayerNorm over few channels turns equal inputs into infinite slopes
                module.bias.normal_(std=0.5)
    # Which object it is, only its mask says. Where the picture is louder, training settles on "all objects" and never
    # leaves it: with unit gains the IoU of the next frame stays at 0.11, with these it is 0.6 after 40 steps.
    embed, downsampler = tracker.prompt_encoder.mask_embed, tracker.memory_encoder.mask_downsampler
    _tell_inside_from_outside(embed, embed.conv3, side=4)
    _tell_inside_from_outside(downsampler, downsampler.final_conv, side=16)
    tracker.memory_encoder.feature_projection.weight.mul_(0.5)
    tracker.mask_decoder.conv_s1.weight.mul_(0.15)
    tracker.mask_decoder.conv_s0.weight.mul_(0.075)
    for layer in tracker.memory_encoder.memory_fuser.layers:
        layer.scale.fill_(1.0)  # transformers zeroes it whatever the configuration says
    size = tracker.mask_downsample.kernel_size[0] ** 2
    tracker.mask_downsample.weight.fill_(20.0 / size)  # a mask of 0-1 becomes logits of -10 to 10
    tracker.mask_downsample.bias.fill_(-10.0)
    nn.init.constant_(tracker.mask_decoder.pred_obj_score_head.proj_out.bias, 2.0)  # most objects can be seen
    for layer in tracker.memory_attention.layers:
        frequencies = tracker.memory_attention.rotary_emb.inv_freq
        look_nearby(layer.cross_attn_image, inverse_frequencies=frequencies, strength=3.5)
        layer.cross_attn_image.o_proj.weight.mul_(2.0)


@torch.no_grad()
def look_nearby(attention: Any, *, inverse_frequencies: Tensor, strength: float = 2.5) -> None:
    """Bias an attention with axial rotary positions so that each head looks at one neighbourhood.

    Head 0 looks at its own place, the last head everywhere, the others at places on a `RING` around them. A constant
    query and key, rotated by their positions, meet in phase where the difference of positions equals the head's offset.

    Args:
        attention: Has `q_proj`, `k_proj` and `num_attention_heads`; its channels are pairs, x axis first.
        inverse_frequencies: (F,), of one axis; a head has 4F channels.
        strength: Length of query and key in each pair of channels.
    """
    heads = attention.num_attention_heads
    frequencies = inverse_frequencies.cpu().float()
    query, key = torch.zeros(heads, 2, len(frequencies), 2), torch.zeros(heads, 2, len(frequencies), 2)
    for head in range(max(heads - 1, 1)):
        angle = 2 * math.pi * head / max(heads - 2, 1)
        radius = 0.0 if head == 0 else RING
        for axis, offset in enumerate((radius * math.cos(angle), radius * math.sin(angle))):
            key[head, axis, :, 0] = strength
            query[head, axis, :, 0] = strength * torch.cos(offset * frequencies)
            query[head, axis, :, 1] = strength * torch.sin(offset * frequencies)
    attention.q_proj.weight.mul_(0.3)
    attention.k_proj.weight.mul_(0.3)
    attention.q_proj.bias.copy_(query.flatten())
    attention.k_proj.bias.copy_(key.flatten())


def _tell_inside_from_outside(path: Any, last: Any, *, side: int) -> None:
    """Scale and shift the last layer of what reads a mask: 0 outside of the object, unit length per channel inside.

    Args:
        path: Maps mask logits of -10 and 10.
        last: Its last layer, a 1 x 1 convolution.
        side: Pixels of the mask per side of one token.
    """
    logits = torch.full((1, 1, 9 * side, 9 * side), 10.0, device=last.weight.device, dtype=last.weight.dtype)
    inside, outside = path(logits)[0, :, 4, 4], path(-logits)[0, :, 4, 4]
    size = (inside - outside).pow(2).mean().sqrt()
    last.weight.div_(size)
    last.bias.sub_(outside).div_(size)


def _normalise_neck(model: Any) -> None:
    """Scale each level of the tracker's neck to a standard deviation of 1 on a drawn picture."""
    backbone = model.detector_model.vision_encoder.backbone
    like = next(backbone.parameters())
    picture = drawn_picture(backbone.config.image_size).to(like.device, like.dtype)
    side = model.tracker_model.prompt_encoder.image_embedding_size
    features = backbone(picture).last_hidden_state.transpose(1, 2).unflatten(2, side)
    for layer in model.tracker_neck.fpn_layers:
        size = layer(features).std()
        layer.proj2.weight.div_(size)
        layer.proj2.bias.div_(size)


def _place_anchors(decoder: Any, size: float) -> None:
    """Spread the queries' starting boxes over the image, row by row."""
    count = len(decoder.reference_points.weight)
    columns = math.ceil(math.sqrt(count))
    rows = math.ceil(count / columns)
    boxes = []
    for query in range(count):
        row, column = divmod(query, columns)
        in_row = min(columns, count - row * columns)
        boxes.append([(column + 0.5) / in_row, (row + 0.5) / rows, size, size])
    decoder.reference_points.weight.copy_(torch.logit(torch.tensor(boxes), eps=1e-3))
    nn.init.normal_(decoder.query_embed.weight, std=0.02)


def _pool_inside_boxes(mlp: Any, heads: int) -> None:
    """Make a decoder's relative position bias fall outside the box, steeper from head to head.

    Its input is the signed distance to the two edges of the box along one axis, negative before an edge.
    """
    mlp.layer1.weight.mul_(0.1)
    mlp.layer2.weight.mul_(0.1)
    mlp.layer1.weight[0] = torch.tensor([-1.0, 0.0])
    mlp.layer1.weight[1] = torch.tensor([0.0, 1.0])
    steepness = torch.linspace(8.0, 24.0, heads)
    mlp.layer2.weight[:, 0] = -steepness
    mlp.layer2.weight[:, 1] = -steepness


def _set_prior(scoring: Any, prior: float) -> None:
    """Give the dot product of query and text a negative mean: opposite biases along one direction."""
    width = len(scoring.text_proj.bias)
    length = math.sqrt(-math.log(prior / (1 - prior)) / scoring.scale / width)
    scoring.text_proj.bias.fill_(length)
    scoring.query_proj.bias.fill_(-length)


def drawn_picture(size: int) -> Tensor:
    """Draw five bright discs on a dark, noisy floor: (1, 3, size, size), normalised."""
    y, x = torch.meshgrid(torch.linspace(0, 1, size), torch.linspace(0, 1, size), indexing="ij")
    picture = -0.5 + 0.1 * torch.randn(3, size, size)
    for centre_x, centre_y, radius, colour in torch.rand(5, 4).tolist():
        disc = (x - centre_x) ** 2 + (y - centre_y) ** 2 < (0.05 + 0.08 * radius) ** 2
        picture[:, disc] += 0.5 + colour
    return picture.clamp(-1, 1)[None]
