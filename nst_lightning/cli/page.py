"""The first page of ``nst fit --help``: what people reach for, in words that need neither torch nor a parser."""

from __future__ import annotations

import difflib
from collections.abc import Sequence

from nst_lightning.errors import UserError

TOPICS = ("all", "data", "model", "trainer", "output")

PAGE = """\
Make a picture from a content and a style image.

  nst fit --config quickstart                                 a first picture, nothing to download
  nst fit --data.content photo.jpg --data.style painting.jpg  your own
  nst fit --ckpt_path last                                    go on where a run stopped

pictures   --data.content FILE          what is kept
           --data.style FILE            whose style is taken; several: '[a.jpg, b.jpg]'
           --output FILE                where the result goes; its suffix says the format
           --data.size 512              long side in pixels
           --data.style_size 512        size of the style: larger makes larger strokes
           --data.color luminance       keep the photograph's colours
           --data.init noise            start from noise, white, grey or a picture, not the content
           --data.content_mask faces    keep faces clear, or what is white in a FILE
how far    --model.strength 3           style against content, 1 is neutral
           --model.likeness 0.8         0.5 is neutral, 1 keeps shapes and faces, 0 is nearly free
           --model.evaluations 300      how long: evaluations of one stage at the full size
           --model.terms '[Content, Wasserstein]'     what style means
network    --model.extractor CompactVGG19             comes with the package, 0.4 of the time
           --model.extractor.pooling average          max, average or l2
           --model.extractor.weights FILE             VGG-19 from a file
optimiser  --model.optimizer torch.optim.Adam --model.optimizer.lr 0.02
machine    --trainer.accelerator cuda   cpu, cuda, mps, xpu or auto
           --trainer.precision 32-true  float32; bf16-mixed where the hardware has it
           --model.memory 6             GiB that the run may take
the run    --snapshot_every 20          evaluations between pictures in the run's folder
           --timelapse film.mp4         the picture as it grows: mp4, webp or gif
           --seed_everything 7          another noise; --data.seed for the noise alone
           --log lines                  bar, lines, json or none
presets    --config NAME, or a file; several of them, later ones win; nst presets says more
           quickstart   the demo pair               fast         your own, in the least time
           painterly    the best general result     poster       large prints
           portrait     people stay who they are    photoreal    no strokes, new colours and light
           bold         painting over everything    luminance    the photograph's colours
           texture      a texture, no content       regions      styles where masks say
           article      average pooling             gatys        the released setting
           gatys_paper  the paper's formulas        hardware/    for cpu, cuda, mps, xpu, multi

Every option: nst fit --help all, or --help data, model, trainer, output. One class and its options:
nst fit --model.extractor.help CompactVGG19"""


def help_asked_for(args: Sequence[str]) -> str | None:
    """The topic of a wish for help: empty for the first page, None if there is no such wish.

    Raises:
        UserError: If there is no such topic.
    """
    for index, arg in enumerate(args):
        flag, equals, topic = arg.partition("=")
        if flag in {"-h", "--help"}:
            after = args[index + 1] if index + 1 < len(args) else ""
            topic = topic if equals else after if not after.startswith("-") else ""
            topic = topic.strip("-").rstrip(".")
            if topic and topic not in TOPICS:
                near = difflib.get_close_matches(topic, TOPICS, n=1)
                raise UserError(
                    f"--help: must be alone or followed by {', '.join(TOPICS)}, got '{topic}'; "
                    f"type: nst fit --help {near[0] if near else 'all'}"
                )
            return topic
    return None
