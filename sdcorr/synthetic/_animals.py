"""Figures that live: a quadruped, a bird, a fish, and a doll that stands like a person."""

from __future__ import annotations

import numpy as np

from sdcorr.synthetic._figures import LEFT, RIGHT, Builder, block, down, pitch, rod, vector, yaw
from sdcorr.synthetic._looks import Look, Mark
from sdcorr.synthetic._solids import Floats

SIDES = (LEFT, RIGHT)


def _eye(place: tuple[float, float, float], radius: float) -> Mark:
    return Mark(place, radius, "#141414")


def quadruped(b: Builder) -> None:
    """Four legs, a muzzle, ears and a tail."""
    long, deep, wide = b.size(0.95), b.size(0.4), b.size(0.34)
    upper, lower, neck, head = b.size(0.62), b.size(0.55), b.size(0.6, 0.25), b.size(0.3)
    thick, muzzle, ear, tail = b.size(0.15), b.size(0.3), b.size(0.27, 0.3), b.size(0.85)
    coat = Look("#b9793f", "#f1dfc0", "spots", 1.5)
    leg, sock = Look("#a4652f", "#5b3317", "bands", 1.4), Look("#e9dcc4", "#6d5136", "bands", 2.2)
    b.add("body", block("ellipsoid", (0, 0, 0), (long, wide, deep)), coat)
    shoulder = vector(0.72 * long, 0, 0.35 * deep)
    skull = shoulder + neck * _up(b.angle(25, 60))
    b.add("neck", rod(shoulder, skull, 0.19, 0.18), Look("#8a4f22", "#e0b27a", "bands", 2.5))
    nod = pitch(b.angle(-35, 5))
    nod = yaw(b.angle(-20, 20)) @ nod
    face = Look("#c98f55", "#8d5526", "stripes", 1.2, 0.0, (_eye((0.45, 0.75, 0.48), 0.27),))
    b.add("head", block("ellipsoid", skull, (head, 0.85 * head, 0.9 * head), nod), face)
    snout = skull + nod @ [head + 0.35 * muzzle, 0, -0.25 * head]
    nose = Look("#efe0c6", "#d5b48a", "mottled", 2.0, 0.0, (Mark((1, 0, 0.1), 0.45, "#1b1512"),))
    b.add("muzzle", block("ellipsoid", snout, (muzzle, 0.5 * head, 0.48 * head), nod), nose)
    rump = vector(-0.93 * long, 0, 0.3 * deep)
    wag = yaw(b.angle(-35, 35)) @ _up(b.angle(100, 165))
    b.add(
        "tail", rod(rump, rump + tail * wag, 0.09, 0.09), Look("#6d3f1d", "#f1dfc0", "bands", 3.0)
    )
    for side in SIDES:
        root = skull + nod @ [-0.15 * head, 0.6 * head, 0.6 * head]
        tip = root + nod @ (ear * vector(-0.25, 0.45, 1.0))
        pinna = Look("#5b3317", "#d9a06b", "bands", 1.5)
        b.side(side, "ear", rod(root, tip, 0.4 * ear, 0.2 * ear), pinna)
        for name, x in (("front", 0.68 * long), ("back", -0.68 * long)):
            swing, bend = b.angle(-30, 30), b.angle(0, 35) * (-1 if name == "front" else 1)
            hip = vector(x, 0.72 * wide, -0.35 * deep)
            knee = hip + upper * down(swing)
            ankle = knee + lower * down(swing + bend)
            b.side(side, f"{name}_thigh", rod(hip, knee, 1.25 * thick, thick), leg)
            b.side(side, f"{name}_shin", rod(knee, ankle, 0.75 * thick, 0.7 * thick), sock)
            paw = ankle + vector(0.09, 0, -0.03)
            hoof = Look("#33261c", "#7a6148", "stripes", 2.0)
            b.side(side, f"{name}_paw", block("ellipsoid", paw, (0.2, 0.13, 0.1)), hoof)
    b.point("nose", "muzzle", (1, 0, 0))
    b.point("eye", "head", _unit(0.45, 0.75, 0.48))
    b.point("ear_tip", "ear", (0, 0, 1))
    b.point("throat", "neck", _unit(-1, 0, 0.3))
    b.point("withers", "body", _unit(0.45, 0, 0.9))
    b.point("croup", "body", _unit(-0.55, 0, 0.83))
    b.point("flank", "body", (0, 1, 0))
    b.point("tail_tip", "tail", (0, 0, 1))
    for name in ("front", "back"):
        b.point(f"{name}_knee", f"{name}_shin", _unit(0.6, 0.5, -0.62))
        b.point(f"{name}_toe", f"{name}_paw", _unit(0.9, 0.3, 0.3))


def bird(b: Builder) -> None:
    """Two legs, folded wings, a beak, a crest and a fan of a tail."""
    long, deep, wide = b.size(0.72), b.size(0.46), b.size(0.42)
    head, beak, wing, tail = b.size(0.3), b.size(0.36, 0.3), b.size(0.7), b.size(0.6, 0.3)
    upper, lower, neck, crest = b.size(0.3), b.size(0.42, 0.25), b.size(0.35, 0.3), b.size(0.26)
    tilt = pitch(b.angle(5, 40))
    b.add("body", block("ellipsoid", (0, 0, 0), (long, wide, deep), tilt),
          Look("#3f7fb3", "#e8ecd8", "spots", 2.0))  # fmt: skip
    throat = tilt @ [0.7 * long, 0, 0.3 * deep]
    skull = throat + neck * _up(b.angle(35, 80))
    b.add("neck", rod(throat, skull, 0.2, 0.19), Look("#e3e6d6", "#29577d", "bands", 3.0))
    nod = yaw(b.angle(-30, 30)) @ pitch(b.angle(-20, 15))
    face = Look("#24507a", "#7fb0d1", "stripes", 1.0, 0.0, (_eye((0.5, 0.8, 0.3), 0.3),))
    b.add("head", block("ellipsoid", skull, (head, 0.88 * head, 0.92 * head), nod), face)
    bill = skull + nod @ [head + 0.4 * beak, 0, -0.12 * head]
    b.add("beak", block("ellipsoid", bill, (beak, 0.11, 0.12), nod),
          Look("#e9a227", "#a6541b", "stripes", 1.3))  # fmt: skip
    top = skull + nod @ [-0.2 * head, 0, 0.75 * head]
    b.add("crest", rod(top, top + nod @ (crest * vector(-0.7, 0, 0.9)), 0.12, 0.05),
          Look("#d9483b", "#f6c3a8", "bands", 2.0))  # fmt: skip
    rump = tilt @ [-0.85 * long, 0, 0]
    fan = pitch(b.angle(10, 40)) @ tilt
    b.add("tail", block("ellipsoid", rump + fan @ [-0.6 * tail, 0, 0], (tail, 0.24, 0.07), fan),
          Look("#1f3f63", "#d5dccb", "stripes", 3.0))  # fmt: skip
    for side in SIDES:
        spread = yaw(b.angle(0, 14)) @ pitch(b.angle(-6, 12)) @ tilt
        middle = tilt @ [-0.1 * long, 0.92 * wide, 0.12 * deep]
        b.side(side, "wing", block("ellipsoid", middle, (wing, 0.09, 0.3), spread),
               Look("#2c6a4a", "#d8d9a5", "stripes", 2.6))  # fmt: skip
        swing = b.angle(-25, 25)
        hip = tilt @ [0.02, 0.5 * wide, -0.75 * deep]
        knee = hip + upper * down(swing)
        ankle = knee + lower * down(swing - b.angle(0, 30))
        b.side(side, "thigh", rod(hip, knee, 0.13, 0.12), Look("#e3e6d6", "#29577d", "bands", 2.0))
        b.side(
            side, "shin", rod(knee, ankle, 0.055, 0.055), Look("#e08a1e", "#7a4310", "bands", 4.0)
        )
        b.side(side, "foot", block("ellipsoid", ankle + vector(0.1, 0, -0.02), (0.22, 0.13, 0.06)),
               Look("#c96f16", "#5e330c", "stripes", 2.0))  # fmt: skip
    b.point("beak_tip", "beak", (1, 0, 0))
    b.point("eye", "head", _unit(0.5, 0.8, 0.3))
    b.point("crest_tip", "crest", (0, 0, 1))
    b.point("nape", "neck", _unit(0.9, 0, 0.2))
    b.point("breast", "body", _unit(0.75, 0, -0.55))
    b.point("back", "body", _unit(-0.2, 0, 0.98))
    b.point("tail_tip", "tail", (-1, 0, 0))
    b.point("wing_bend", "wing", _unit(0.9, 0.35, 0))
    b.point("wing_middle", "wing", (0, 1, 0))
    b.point("wing_tip", "wing", _unit(-0.97, 0.2, 0))
    b.point("knee", "shin", _unit(0.4, 0.4, -0.85))
    b.point("toe", "foot", _unit(0.95, 0.2, 0.2))


def fish(b: Builder) -> None:
    """A tall body, fins and a forked tail."""
    long, deep, wide = b.size(1.0), b.size(0.48, 0.2), b.size(0.27)
    fork, dorsal, fin = b.size(0.5), b.size(0.45, 0.25), b.size(0.34)
    scales = Look("#e2792b", "#f7e3b4", "stripes", 2.0)
    b.add("body", block("ellipsoid", (0, 0, 0), (long, wide, deep)), scales)
    face = Look("#c4481f", "#f3b27a", "bands", 1.6, 0.0, (_eye((0.35, 0.85, 0.4), 0.28),))
    b.add(
        "head",
        block("ellipsoid", (0.72 * long, 0, 0), (0.42 * long, 0.92 * wide, 0.7 * deep)),
        face,
    )
    b.add("lips", block("ellipsoid", (1.12 * long, 0, -0.06), (0.11, 0.12, 0.1)),
          Look("#f2c9a0", "#a8432a", "bands", 1.5))  # fmt: skip
    sway = yaw(b.angle(-35, 35))
    root = vector(-0.92 * long, 0, 0)
    for name, up in (("upper", 1), ("lower", -1)):
        lobe = sway @ [-0.75 * fork, 0, up * 0.8 * fork]
        b.add(f"{name}_tail", rod(root, root + lobe, 0.19, 0.06),
              Look("#7e2f57", "#f0b9a2", "bands" if up > 0 else "stripes", 3.0))  # fmt: skip
    base = vector(0.1 * long, 0, 0.82 * deep)
    lean = b.angle(-20, 15)
    b.add("dorsal", rod(base, base + dorsal * _up(np.pi / 2 + 0.6 + lean), 0.34, 0.05),
          Look("#2d6f8e", "#f1e7bd", "stripes", 2.6))  # fmt: skip
    keel = vector(-0.15 * long, 0, -0.8 * deep)
    b.add("belly_fin", rod(keel, keel + 0.7 * fin * down(-0.6 + b.angle(-15, 15)), 0.2, 0.05),
          Look("#4d8f6f", "#ecf0c9", "stripes", 2.0))  # fmt: skip
    for side in SIDES:
        joint = vector(0.38 * long, 0.88 * wide, -0.18 * deep)
        flap = down(-0.7 + b.angle(-25, 25), b.angle(15, 60))
        b.side(side, "fin", rod(joint, joint + fin * flap, 0.15, 0.06),
               Look("#3a4f9c", "#d3dcf4", "bands", 2.6))  # fmt: skip
    b.point("mouth", "lips", (1, 0, 0))
    b.point("eye", "head", _unit(0.35, 0.85, 0.4))
    b.point("gill", "head", _unit(-0.25, 0.95, -0.1))
    b.point("forehead", "head", _unit(0.3, 0, 0.95))
    b.point("dorsal_tip", "dorsal", (0, 0, 1))
    b.point("side", "body", _unit(-0.45, 0.9, 0))
    b.point("belly", "body", _unit(0.25, 0, -0.97))
    b.point("belly_fin_tip", "belly_fin", (0, 0, 1))
    b.point("upper_tip", "upper_tail", (0, 0, 1))
    b.point("lower_tip", "lower_tail", (0, 0, 1))
    b.point("fin_tip", "fin", (0, 0, 1))


def doll(b: Builder) -> None:
    """A wooden person with a hat."""
    tall, wide, deep = b.size(0.52), b.size(0.34), b.size(0.22)
    head, arm, forearm = b.size(0.25), b.size(0.42), b.size(0.4)
    thigh, shin, hat = b.size(0.5), b.size(0.5), b.size(0.16, 0.3)
    b.add("torso", block("ellipsoid", (0, 0, 0), (deep, wide, tall)),
          Look("#b5352f", "#f2e6cf", "bands", 3.0))  # fmt: skip
    b.add("hips", block("ellipsoid", (0, 0, -0.78 * tall), (0.95 * deep, 0.85 * wide, 0.22)),
          Look("#27406b", "#8fa6cc", "stripes", 2.0))  # fmt: skip
    skull = vector(0, 0, tall + 0.75 * head)
    nod = yaw(b.angle(-40, 40)) @ pitch(b.angle(-15, 15))
    mouth = Mark((0.9, 0.0, -0.45), 0.2, "#a32020")
    face = Look("#efc9a1", "#e0ab7c", "mottled", 2.0, 0.0, (_eye((0.87, 0.38, 0.15), 0.16), mouth))
    b.add("head", block("ellipsoid", skull, (head, 0.9 * head, 1.05 * head), nod), face)
    middle = skull + nod @ [head, 0, -0.1 * head]
    b.add("nose", block("ellipsoid", middle, (0.12, 0.075, 0.075), nod),
          Look("#d98a63", "#efc9a1", "mottled", 1.0))  # fmt: skip
    brim = skull + nod @ [0, 0, 0.62 * head]
    felt, ribbon = (
        Look("#2f6b4f", "#16392a", "bands", 1.0),
        Look("#3c8062", "#e9dc9d", "bands", 2.0),
    )
    b.add("brim", block("cylinder", brim, (1.35 * head, 1.3 * head, 0.03), nod), felt)
    crown = brim + nod @ [0, 0, hat]
    b.add("hat", block("cylinder", crown, (0.8 * head, 0.78 * head, hat), nod), ribbon)
    for side in SIDES:
        shoulder = vector(0, 0.95 * wide, 0.6 * tall)
        elbow = shoulder + arm * down(b.angle(-50, 60), b.angle(8, 60))
        wrist = elbow + forearm * down(b.angle(0, 110), b.angle(-10, 45))
        b.side(
            side, "arm", rod(shoulder, elbow, 0.11, 0.11), Look("#d9a23a", "#7a4d12", "bands", 2.2)
        )
        b.side(
            side, "forearm", rod(elbow, wrist, 0.09, 0.09), Look("#f2e6cf", "#b5352f", "bands", 3.0)
        )
        b.side(side, "hand", block("ellipsoid", wrist, (0.11, 0.1, 0.11)),
               Look("#efc9a1", "#b98355", "spots", 2.0))  # fmt: skip
        hip = vector(0, 0.5 * wide, -0.85 * tall)
        swing = b.angle(-35, 45)
        knee = hip + thigh * down(swing, b.angle(0, 15))
        ankle = knee + shin * down(swing - b.angle(0, 50))
        b.side(side, "thigh", rod(hip, knee, 0.15, 0.14), Look("#3a5a94", "#c6d2ea", "bands", 1.8))
        b.side(side, "shin", rod(knee, ankle, 0.11, 0.1), Look("#22335a", "#9fb0d0", "checks", 1.6))
        b.side(side, "shoe", block("ellipsoid", ankle + vector(0.1, 0, -0.03), (0.22, 0.12, 0.1)),
               Look("#5a3220", "#d7b48c", "stripes", 1.6))  # fmt: skip
    b.point("hat_top", "hat", (0, 0, 1))
    b.point("eye", "head", _unit(0.87, 0.38, 0.15))
    b.point("nose", "nose", (1, 0, 0))
    b.point("chin", "head", _unit(0.6, 0, -0.8))
    b.point("chest", "torso", _unit(0.95, 0, 0.3))
    b.point("back", "torso", _unit(-0.95, 0, 0.3))
    b.point("elbow", "forearm", _unit(-0.2, 0.6, -0.8))
    b.point("shoulder", "arm", _unit(0, 0.7, -0.72))
    b.point("knuckle", "hand", _unit(0.7, 0.7, 0))
    b.point("knee", "shin", _unit(0.75, 0, -0.66))
    b.point("toe", "shoe", _unit(0.95, 0, 0.3))


def _up(angle: float) -> Floats:
    """The unit vector forward, turned up by an angle in radians."""
    return vector(np.cos(angle), 0.0, np.sin(angle))


def _unit(x: float, y: float, z: float) -> tuple[float, float, float]:
    """The place of an ellipsoid in a direction from its centre."""
    length = float(np.sqrt(x * x + y * y + z * z))
    return (x / length, y / length, z / length)
