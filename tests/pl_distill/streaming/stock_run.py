"""transformers' own streaming in a process that never sees ours: ``python stock_run.py MODEL FRAMES SCHEDULE OUT``.

FRAMES is a .npy of RGB pictures (T, H, W, 3). SCHEDULE is JSON, a list of attributes that the model gets before each
frame: random weights find nothing at the usual thresholds. OUT becomes a .npz with ids, masks, boxes and scores of
every frame, as transformers' own processor gives them.
"""

import json
import sys

import numpy as np
import torch
from safetensors.torch import load_file
from transformers import Sam3VideoModel, Sam3VideoProcessor
from transformers.modeling_outputs import BaseModelOutputWithPooling
from transformers.utils import logging


def main(folder: str, frames: str, schedule: str, out: str) -> None:
    torch.set_num_threads(1)
    logging.set_verbosity_error()  # it warns of the encoders that a deployed model does not have
    model = Sam3VideoModel.from_pretrained(folder, dtype=torch.float32).eval()
    processor = Sam3VideoProcessor.from_pretrained(folder)
    session = processor.init_video_session()
    prompts = load_file(f"{folder}/prompts.safetensors")
    number = session.add_prompt("pig")
    session.prompt_embeddings[number] = BaseModelOutputWithPooling(pooler_output=prompts["pig.pooler_output"].float())
    session.prompt_attention_masks[number] = prompts["pig.attention_mask"]
    with open(schedule, encoding="utf-8") as file:  # noqa: PTH123  # as the script of somebody else would
        settings = json.load(file)
    found = {}
    for index, picture in enumerate(np.load(frames)):
        for name, value in settings[index].items():
            setattr(model, name, value)
        inputs = processor(images=picture, return_tensors="pt")
        output = model(inference_session=session, frame=inputs.pixel_values[0], frame_idx=index)
        result = processor.postprocess_outputs(session, output, original_sizes=[list(picture.shape[:2])])
        ids = [int(track) for track in result["object_ids"]]
        found[f"{index}.ids"] = np.array(ids, np.int64)
        found[f"{index}.masks"] = np.array(result["masks"], bool)
        found[f"{index}.boxes"] = np.array(result["boxes"], np.float32)
        scores = [output.obj_id_to_tracker_score.get(track, 0.0) for track in ids]
        found[f"{index}.scores"] = np.array(scores, np.float32)
    conditioning = [len(each["cond_frame_outputs"]) for each in session.output_dict_per_obj.values()]
    ours = [name for name in sys.modules if name.split(".")[0] in ("pl_distill", "datamodules", "callbacks")]
    np.savez(out, conditioning=conditioning, ours=np.array(ours, dtype=str), **found)


if __name__ == "__main__":
    main(*sys.argv[1:])
