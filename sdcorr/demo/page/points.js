// Points of a file: what this page or `sdcorr match --json` has written, or what --points-file takes.

import { nearestOn } from "./stage.js";

const isPlace = (one) => Array.isArray(one) && one.length === 2 && one.every(Number.isFinite);

function fromMatches(told, photos) {
  for (const [key, side] of [["source", "first"], ["target", "second"]]) {
    const size = told[key]?.size;
    if (!isPlace(size)) throw new Error(`it does not say which size its ${key} has`);
    const [height, width] = size;
    if (height !== photos[side].height || width !== photos[side].width) {
      throw new Error(`it is of another pair: its ${key} has ${width} × ${height} pixels, the ${side} photo ${photos[side].width} × ${photos[side].height}`);
    }
  }
  return told.matches.map((match) => {
    const { name, source, target, asked, corrected } = match ?? {}, turned = asked === "target", byHand = corrected === true;
    const place = { first: !turned || byHand ? source : null, second: turned || byHand ? target : null };
    return { name, asked: turned ? "second" : "first", place, corrected: byHand };
  });
}

// What the page can show and the server takes; null is none.
function nameOf(name) {
  return name === null || name === undefined ? null : String(name).replace(/\p{C}/gu, "").trim().slice(0, 100);
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
  for (const point of points) {
    const { asked, place, corrected } = point;
    point.name = nameOf(point.name);
    for (const side of corrected ? ["first", "second"] : [asked]) {
      if (!isPlace(place[side])) throw new Error(`expected points [x, y], got ${JSON.stringify(place[side])?.slice(0, 60)}`);
      if (String(nearestOn(place[side], photos[side])) !== String(place[side])) throw new Error(`the point ${place[side].join(", ")} is not on the ${side} photo`);
    }
  }
  return points;
}
