"""Figures that do not live: a car, a plane, a boat and a chair."""

from __future__ import annotations

import numpy as np

from sdcorr.synthetic._figures import (
    LEFT,
    RIGHT,
    Builder,
    block,
    down,
    pitch,
    rod,
    roll,
    vector,
    yaw,
)
from sdcorr.synthetic._looks import Look, Mark
from sdcorr.synthetic._solids import Kind

SIDES = (LEFT, RIGHT)
TYRE = Look("#1c1c1e", "#3a3b3f", "mottled", 2.0, 0.0, (Mark((0, 0, 1), 0.5, "#d7d9de"),))


def car(b: Builder) -> None:
    """Four wheels, a cabin with panes, lamps and mirrors."""
    long, wide, tall = b.size(1.15), b.size(0.5), b.size(0.24)
    cabin, roof, back = b.size(0.58, 0.2), b.size(0.24), b.size(0.18, 0.6)
    wheel, apart = b.size(0.25), b.size(0.7)
    b.add("body", block("box", (0, 0, 0), (long, wide, tall)),
          Look("#c23b32", "#f0d9c8", "stripes", 1.3))  # fmt: skip
    above = tall + roof
    b.add("cabin", block("box", (-back, 0, above), (cabin, 0.88 * wide, roof)),
          Look("#e6e1d6", "#26394a", "panes", 1.0))  # fmt: skip
    slope = pitch(-b.size(0.12))
    bonnet = (cabin - back + long) / 2
    lid = ((long - cabin + back) / 2, 0.8 * wide, 0.06)
    b.add("bonnet", block("box", (bonnet, 0, tall + 0.02), lid, slope),
          Look("#8e2018", "#f2c14e", "stripes", 1.6))  # fmt: skip
    b.add("front_bumper", block("box", (long + 0.04, 0, -0.6 * tall), (0.07, 0.97 * wide, 0.09)),
          Look("#b9bec6", "#4a4f57", "checks", 2.4))  # fmt: skip
    b.add("grille", block("box", (long + 0.01, 0, 0.15 * tall), (0.03, 0.45 * wide, 0.4 * tall)),
          Look("#202327", "#9aa1ab", "bands", 3.0))  # fmt: skip
    b.add("back_bumper", block("box", (-long - 0.04, 0, -0.6 * tall), (0.07, 0.97 * wide, 0.09)),
          Look("#5d636c", "#d8dce2", "planks", 2.0))  # fmt: skip
    b.add("plate", block("box", (-long - 0.01, 0, 0.1 * tall), (0.03, 0.35 * wide, 0.35 * tall)),
          Look("#f3efdf", "#30343a", "stripes", 2.0))  # fmt: skip
    steer = yaw(b.angle(-30, 30))
    for side in SIDES:
        lamp = block("ellipsoid", (long, 0.74 * wide, 0.35 * tall), (0.08, 0.12, 0.12))
        b.side(side, "headlight", lamp, Look("#fbf6cf", "#cfa93a", "spots", 1.5))
        rear = block("box", (-long, 0.78 * wide, 0.3 * tall), (0.04, 0.1, 0.13))
        b.side(side, "tail_light", rear, Look("#e23a2a", "#7a0f0a", "bands", 1.5))
        ear = block("ellipsoid", (cabin - back - 0.05, 1.12 * wide, 1.45 * tall), (0.07, 0.1, 0.08))
        b.side(side, "mirror", ear, Look("#39424d", "#c5ccd6", "bands", 1.2))
        turned = steer if side == LEFT else steer.T  # both wheels steer the same way
        for name, x in (("front", apart), ("back", -apart)):
            outward = (turned if name == "front" else np.eye(3)) @ roll(-np.pi / 2)
            tyre = block("cylinder", (x, 0.93 * wide, -tall), (wheel, wheel, 0.11), outward)
            b.side(side, f"{name}_wheel", tyre, TYRE)
    for name in ("front", "back"):
        b.point(f"{name}_hub", f"{name}_wheel", (0, 0, 1))
    b.point("headlight", "headlight", (1, 0, 0))
    b.point("tail_light", "tail_light", (-1, 0, 0))
    b.point("mirror", "mirror", (0, 1, 0))
    b.point("roof_front", "cabin", (1, 1, 1))
    b.point("roof_back", "cabin", (-1, 1, 1))
    b.point("bonnet_corner", "bonnet", (1, 1, 1))
    b.point("grille", "grille", (1, 0, 0))
    b.point("plate", "plate", (-1, 0, 0))
    b.point("roof", "cabin", (0, 0, 1))


def plane(b: Builder) -> None:
    """A fuselage, wings with engines, and a tail."""
    long, thick, span = b.size(1.25), b.size(0.2), b.size(0.95)
    chord, fin, rear = b.size(0.24), b.size(0.42, 0.25), b.size(0.42)
    sweep, lift = b.size(0.4, 0.4), b.size(0.08, 0.5)
    b.add("fuselage", block("ellipsoid", (0, 0, 0), (long, thick, thick)),
          Look("#e8e9e4", "#2f6fae", "stripes", 3.2))  # fmt: skip
    b.add("nose", block("ellipsoid", (0.86 * long, 0, 0), (0.24 * long, 0.62 * thick, 0.6 * thick)),
          Look("#d6452f", "#f6d9c5", "bands", 2.0))  # fmt: skip
    glass = (0.26, 0.6 * thick, 0.55 * thick)
    b.add("cockpit", block("ellipsoid", (0.52 * long, 0, 0.72 * thick), glass),
          Look("#22313f", "#9cc4dd", "stripes", 1.6))  # fmt: skip
    stern = vector(-0.8 * long, 0, 0.4 * thick)
    b.add("fin", rod(stern, stern + vector(-0.45 * fin, 0, fin), 0.2, 0.045, "box"),
          Look("#2c4f8f", "#f0c64a", "bands", 2.0))  # fmt: skip
    for side in SIDES:
        bank = yaw(sweep) @ roll(lift + b.angle(-4, 4))
        root = vector(0.08 * long, 0.5 * thick, -0.25 * thick)
        middle = root + bank @ [0, span / 2, 0]
        b.side(side, "wing", block("box", middle, (chord, span / 2, 0.035), bank),
               Look("#c9ced3", "#b23a2c", "planks", 2.0))  # fmt: skip
        pod = root + bank @ [0.8 * chord, 0.5 * span, -0.14]
        b.side(side, "engine", block("cylinder", pod, (0.1, 0.1, 0.22), pitch(-np.pi / 2)),
               Look("#3b7d55", "#e6edc8", "bands", 2.0))  # fmt: skip
        flap = yaw(0.8 * sweep) @ roll(b.angle(-6, 10))
        small = stern + vector(0.05, 0.2 * thick, -0.2 * thick) + flap @ [0, rear / 2, 0]
        b.side(side, "tailplane", block("box", small, (0.13, rear / 2, 0.03), flap),
               Look("#e0b341", "#5c2f7d", "checks", 2.0))  # fmt: skip
    b.point("nose", "nose", (1, 0, 0))
    b.point("cockpit", "cockpit", (0.35, 0, 0.94))
    b.point("fin_top", "fin", (0, 0, 1))
    b.point("fin_front", "fin", (1, 0, 0.3))
    b.point("back", "fuselage", (0, 0, 1))
    b.point("belly", "fuselage", (0, 0, -1))
    b.point("wing_tip_front", "wing", (1, 1, 0))
    b.point("wing_tip_back", "wing", (-1, 1, 0))
    b.point("wing_root", "wing", (1, -0.7, 0.5))
    b.point("engine", "engine", (0, 0, 1))
    b.point("tailplane_tip", "tailplane", (0, 1, 0))
    b.point("window", "fuselage", (0.5, 0.866, 0))


def boat(b: Builder) -> None:
    """A hull with a cabin, a funnel, a mast and a flag."""
    long, wide, deep = b.size(1.1), b.size(0.4), b.size(0.34)
    cabin, room, funnel = b.size(0.34), b.size(0.22), b.size(0.26, 0.3)
    mast, flag = b.size(0.75, 0.25), b.size(0.3)
    b.add("hull", block("ellipsoid", (0, 0, 0), (long, wide, deep)),
          Look("#8a3b2a", "#efe3cc", "bands", 2.2))  # fmt: skip
    b.add("deck", block("cylinder", (0, 0, 0.36 * deep), (1.02 * long, 1.02 * wide, 0.05)),
          Look("#c99b5e", "#6e4520", "planks", 6.0))  # fmt: skip
    floor = 0.36 * deep + 0.05
    b.add("cabin", block("box", (-0.15, 0, floor + room), (cabin, 0.66 * wide, room)),
          Look("#f0ece0", "#2b5876", "panes", 1.0))  # fmt: skip
    top = floor + 2 * room
    b.add("roof", block("box", (-0.15, 0, top + 0.03), (1.15 * cabin, 0.78 * wide, 0.04)),
          Look("#2f7d6b", "#cfe6d2", "stripes", 2.6))  # fmt: skip
    tilt = b.angle(5, 20)
    chimney = vector(-0.3, 0, top + 0.05)
    b.add("funnel", rod(chimney, chimney - funnel * 1.3 * down(tilt), 0.12, 0.12, "cylinder"),
          Look("#d9a02f", "#23272c", "bands", 1.3))  # fmt: skip
    step = vector(0.5 * long, 0, floor)
    masthead = step - mast * 1.4 * down(b.angle(-5, 5))
    b.add("mast", rod(step, masthead, 0.045, 0.045, "cylinder"),
          Look("#6b4a2b", "#e2cda7", "bands", 4.0))  # fmt: skip
    blow = yaw(b.angle(-40, 40))
    cloth = masthead + blow @ [-flag, 0, -0.17]
    b.add("flag", block("box", cloth, (flag, 0.02, 0.16), blow),
          Look("#c22f3d", "#f7f3e6", "checks", 1.5))  # fmt: skip
    bow, tip = (0.85 * long, 0, 0.4 * deep), (1.25 * long, 0, 0.75 * deep)
    b.add("bowsprit", rod(bow, tip, 0.075, 0.075),
          Look("#4a2f1a", "#d8b37c", "bands", 3.0))  # fmt: skip
    b.add("rudder", block("box", (-1.02 * long, 0, -0.35 * deep), (0.13, 0.04, 0.55 * deep)),
          Look("#3a3d42", "#b8bec6", "bands", 2.0))  # fmt: skip
    for side in SIDES:
        ring = block("cylinder", (0.28, 1.02 * wide, 0.0), (0.13, 0.13, 0.05), roll(-np.pi / 2))
        b.side(side, "buoy", ring, Look("#f5f0e4", "#d8402f", "checks", 1.2, 0.0,
               (Mark((0, 0, 1), 0.5, "#7a2f22"),)))  # fmt: skip
        boom = down(b.angle(-35, 35), 0.55)
        row = vector(-0.45 * long, 0.9 * wide, 0.3 * deep)
        b.side(side, "oar", rod(row, row + 0.7 * boom, 0.08, 0.06),
               Look("#e0c48d", "#5d3a1c", "bands", 3.0))  # fmt: skip
    b.point("bow", "bowsprit", (0, 0, 1))
    b.point("stern", "deck", (-1, 0, 0))
    b.point("roof_front", "roof", (1, 1, 1))
    b.point("roof_back", "roof", (-1, 1, 1))
    b.point("cabin_front", "cabin", (1, 0, 0))
    b.point("funnel_top", "funnel", (0, 0, 1))
    b.point("mast_top", "mast", (0, 0, 1))
    b.point("flag_tip", "flag", (-1, 0, 0))
    b.point("rudder", "rudder", (-1, 0, -1))
    b.point("buoy", "buoy", (0, 0, 1))
    b.point("oar_tip", "oar", (0, 0, 1))
    b.point("keel", "hull", (0, 0, -1))


def chair(b: Builder) -> None:
    """A seat with four legs, a back and arms."""
    deep, wide, leg = b.size(0.5), b.size(0.5), b.size(0.8, 0.2)
    back, thick, arm = b.size(0.5, 0.2), b.size(0.07, 0.3), b.size(0.3)
    b.add(
        "seat",
        block("box", (0, 0, 0), (deep, wide, thick)),
        Look("#a8443c", "#f0e2c4", "checks", 2.4),
    )
    lean = b.angle(3, 22)
    hinge = vector(-deep + 0.05, 0, thick)
    rise = -1 * down(lean)
    low, high = hinge + 0.35 * back * rise, hinge + 2 * back * rise
    b.add("back", rod(low, high, 0.06, 0.92 * wide, "box"),
          Look("#2d5f86", "#e9d9a8", "bands", 2.2))  # fmt: skip
    tilt = pitch(b.angle(-4, 8))
    legs: dict[str, tuple[Kind, Look]] = {
        "front": ("cylinder", Look("#84502a", "#e3bd87", "bands", 2.5)),
        "back": ("box", Look("#4b4540", "#cbbfae", "bands", 3.0)),
    }
    pad = (0.8 * deep, 0.8 * wide, 0.1)
    b.add("cushion", block("ellipsoid", (0.05, 0, thick + 0.05), pad, tilt),
          Look("#dba43c", "#7c4a15", "spots", 2.4))  # fmt: skip
    for side in SIDES:
        post = hinge + vector(0, 0.9 * wide, 0)
        b.side(side, "post", rod(post, post + 2.05 * back * rise, 0.06, 0.06, "box"),
               Look("#5b3a20", "#c79a63", "bands", 4.0))  # fmt: skip
        rest = vector(-0.8 * deep, 1.02 * wide, thick + arm)
        b.side(side, "arm", rod(rest, rest + vector(1.5 * deep, 0, 0.0), 0.05, 0.08, "box"),
               Look("#3f7b55", "#dfe6bd", "bands", 2.5))  # fmt: skip
        stem = vector(0.6 * deep, 1.02 * wide, 0)
        b.side(side, "prop", rod(stem, stem + vector(0, 0, thick + arm), 0.045, 0.045, "cylinder"),
               Look("#e2c79a", "#6a4424", "bands", 2.5))  # fmt: skip
        for name, x in (("front", 0.88 * deep), ("back", -0.88 * deep)):
            kind, look = legs[name]
            slant = b.angle(2, 14) * (1 if name == "front" else -1)
            top = vector(x, 0.88 * wide, -thick)
            foot = top + leg * down(slant, 0.06)
            b.side(side, f"{name}_leg", rod(top, foot, 0.07, 0.07, kind), look)
    b.point("seat_front", "seat", (1, 1, 1))
    b.point("seat_middle", "cushion", (0, 0, 1))
    b.point("seat_edge", "seat", (1, 0, 0))
    b.point("back_top", "post", (0, 0, 1))
    b.point("back_middle", "back", (-1, 0, 0))
    b.point("back_behind", "back", (1, 0, 0))
    b.point("back_crest", "back", (0, 0, 1))
    b.point("arm_tip", "arm", (0, 0, 1))
    b.point("front_foot", "front_leg", (0.95, 0.3, 0.96))
    b.point("back_foot", "back_leg", (-1, 1, 0.96))
