"""Scenes of coloured shapes and their captions: what may be drawn, and how it is said."""

from __future__ import annotations

from dataclasses import dataclass, replace
from string import Formatter

import numpy as np

SHAPES = ("circle", "square", "triangle", "star", "cross", "ring", "heart", "crescent", "arrow", "diamond")
COLOURS = {
    "red": (214, 34, 38),
    "orange": (246, 132, 24),
    "yellow": (248, 220, 40),
    "green": (40, 158, 62),
    "cyan": (52, 200, 216),
    "blue": (38, 84, 212),
    "purple": (124, 44, 168),
    "pink": (248, 132, 190),
    "brown": (122, 72, 36),
    "black": (24, 24, 26),
}
SIZES = {"small": 0.44, "medium": 0.60, "large": 0.78}  # an object's span, in parts of the picture's shorter side
TEXTURES = ("solid", "striped", "dotted", "outlined")
COUNTS = {1: "one", 2: "two", 3: "three"}
POSITIONS = {  # the middle of a single object, in half sides right of and below the picture's middle
    "in the middle": (0.0, 0.0),
    "on the left": (-0.3, 0.0),
    "on the right": (0.3, 0.0),
    "at the top": (0.0, -0.3),
    "at the bottom": (0.0, 0.3),
}
BACKGROUNDS = {"plain": "plain", "gradient": "shaded", "noise": "noisy", "clutter": "cluttered"}

CANONICAL = "a {colour} {shape}"
PHRASINGS = (
    "a photo of a {colour} {shape}",
    "a picture of a {colour} {shape}",
    "the {shape} is {colour}",
    "a {shape}",
    "a photo of a {shape}",
    "a picture of a {shape}",
    "a {colour} shape",
    "a photo of a {colour} shape",
    "a photo of something {colour}",
    "a {size} {colour} {shape}",
    "a {texture} {colour} {shape}",
    "a {size} {texture} {shape}",
    "{count} {colour} {shapes}",
    "a drawing of {count} {shapes}",
    "a {colour} {shape} {position}",
    "a {texture} {shape} {position}",
    "a {colour} {shape} on a {background} background",
    "{count} {texture} {shapes} on a {background} background",
)


@dataclass(frozen=True)
class Scene:
    """What a picture shows: one to three equal objects on a background. Every field is an entry of its table."""

    shape: str
    colour: str
    size: str = "large"
    texture: str = "solid"
    count: int = 1
    position: str = "in the middle"
    background: str = "plain"


def random_scene(rng: np.random.Generator) -> Scene:
    """Choose every attribute at random; several objects are always small and spread around the middle."""
    scene = Scene(
        shape=str(rng.choice(SHAPES)),
        colour=str(rng.choice(list(COLOURS))),
        size=str(rng.choice(list(SIZES))),
        texture=str(rng.choice(TEXTURES)),
        count=int(rng.choice(list(COUNTS), p=(0.6, 0.2, 0.2))),
        position=str(rng.choice(list(POSITIONS))),
        background=str(rng.choice(list(BACKGROUNDS))),
    )
    return scene if scene.count == 1 else replace(scene, size="small", position="in the middle")


def phrase(scene: Scene, rng: np.random.Generator) -> tuple[str, frozenset[str]]:
    """Return a caption and the names of the `Scene` fields it mentions; four in ten captions are canonical.

    The article stays "a" ("a orange ring"), because prompt templates filled in by a program read like that.
    """
    template = CANONICAL if rng.random() < 0.4 else str(rng.choice(PHRASINGS))
    plural = scene.shape + ("es" if scene.shape.endswith("s") else "s")
    values = {
        "colour": scene.colour,
        "shape": scene.shape,
        "shapes": scene.shape if scene.count == 1 else plural,
        "size": scene.size,
        "texture": scene.texture,
        "count": COUNTS[scene.count],
        "position": scene.position,
        "background": BACKGROUNDS[scene.background],
    }
    mentioned = {name.replace("shapes", "shape") for _, name, _, _ in Formatter().parse(template) if name}
    return template.format(**values), frozenset(mentioned)


def caption(scene: Scene, rng: np.random.Generator) -> str:
    """Describe a scene in words: often "a {colour} {shape}", else one of the other phrasings."""
    return phrase(scene, rng)[0]
