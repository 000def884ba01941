// Points of a file: what this page or `sdcorr match --json` has written, or what --points-file takes.

import { nearestOn } from "./stage.js";

const isPlace = (one) => Array.isArray(one) && one.length === 2 && one.every(Number.isFinite);

function fromMatches(told, photos) {
  for (const [key, side] of [["source", "first"], ["target", "second"]]) {
    const [height, width] = told[key]?.size ?? [];
    if (height !== photos[side].height || width !== photos[side].width) {
      throw new Error(`it is of another pair: its ${key} has ${width} × ${height} pixels, the ${side} photo ${photos[side].width} × ${photos[side].height}`);
    }
  }
  return told.matches.map(({ name, source, target, asked, corrected }) => ({
    name,
    asked: asked === "target" ? "second" : "first",
    place: { first: source, second: target },
    corrected: corrected === true,
  }));
}

// [{ name or null, asked: side, place: { first, second or null }, corrected }]
export function pointsOf(text, photos) {
  let told;
  try {
    told = JSON.parse(text);
  } catch (error) {
    throw new Error(`it is no JSON: ${error.message}`);
  }
  const plain = (name, place) => ({ name, asked: "first", place: { first: place, second: null }, corrected: false });
  let points;
  if (Array.isArray(told)) points = told.map((place) => plain(null, place));
  else if (Array.isArray(told?.matches)) points = fromMatches(told, photos);
  else points = Object.entries(told ?? {}).map(([name, place]) => plain(name, place));
  if (!points.length) throw new Error('it holds no points; expected what "Download JSON" writes, [[x, y], ...] or {"name": [x, y], ...}');
  for (const { asked, place, corrected } of points) {
    for (const side of corrected ? ["first", "second"] : [asked]) {
      if (!isPlace(place[side])) throw new Error(`expected points [x, y], got ${JSON.stringify(place[side])?.slice(0, 60)}`);
      if (String(nearestOn(place[side], photos[side])) !== String(place[side])) throw new Error(`the point ${place[side].join(", ")} is not on the ${side} photo`);
    }
  }
  return points;
}
