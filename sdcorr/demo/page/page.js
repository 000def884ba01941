// The page: two photos, a list of points, and what the server says of them.

import { ask, getSetup, sendPhoto } from "./api.js";
import { List, numbers } from "./list.js";
import { Stage } from "./stage.js";

const SIDES = ["first", "second"];
const PAUSE = 400; // ms between two questions whether the photos are joined
const $ = (id) => document.getElementById(id);
const other = (side) => (side === "first" ? "second" : "first");

const photos = { first: null, second: null };
const sent = { first: 0, second: 0 }; // how many were sent: one that another has overtaken is not shown
const stages = {};
let list = null;
// { number, name, asked: side, place: { first: [x, y], second: [x, y] or null }, score, confidence,
//   matched, corrected }
let points = [];
let selected = null;
let nearby = null; // { next, heat } of the selected point
let setup = null;
let pair = null; // photos, recipe, matcher and category as the server was asked to join them
let ready = false; // that is done
let turn = 0; // which pair of photos, recipe and matcher is wanted: what was asked for before is stale

// ---- what the page says

function say(sentence) {
  if ($("status").textContent !== sentence) $("status").textContent = sentence; // or it is read aloud again
}

function fail(error) {
  $("error").textContent = error?.message ?? "";
  $("error").hidden = !error;
}

function showProgress(state, seconds) {
  $("work").hidden = state === null;
  if (state === null) return;
  say(`${state.step[0].toUpperCase()}${state.step.slice(1)}.`);
  Object.assign($("progress"), { value: state.number, max: state.steps + 1 });
  $("seconds").textContent = `${seconds} s`;
}

function whatIsMissing() {
  return photos.first || photos.second ? "Now choose the other photo." : "Choose two photos.";
}

// ---- photos, recipe and matcher

async function choose(side, file) {
  fail(null);
  if (file.size > setup.limits.bytes) {
    fail(new Error(`${file.name} has ${(file.size / 1e6).toFixed(0)} MB; expected at most ${setup.limits.bytes / 1e6} MB`));
    return;
  }
  const mine = ++sent[side], before = photos[side];
  say(`Sending ${file.name}.`);
  try {
    const photo = await sendPhoto(file);
    if (mine !== sent[side]) return;
    photos[side] = photo;
  } catch (error) {
    if (mine !== sent[side]) return;
    fail(error);
    say(photos.first && photos.second ? "The photos are as they were." : whatIsMissing());
    return;
  }
  // one that was let go, and is chosen again, has its points
  if (photos[side].digest !== before?.digest) points = [];
  select(null);
  stages[side].show(photos[side]);
  await join();
}

// One file, or two: the second is the other photo.
function drop(side, files) {
  if (files[0]) choose(side, files[0]);
  if (files[1]) choose(other(side), files[1]);
}

const recipe = () => setup.recipes.find((one) => one.name === $("recipe").value);

function pairing() {
  return {
    first: photos.first.id,
    second: photos.second.id,
    recipe: recipe().name,
    matcher: $("matcher").value,
    category: recipe().category ? $("category").value.trim() : "",
  };
}

// Wait until both photos are joined, then look for all points again.
async function join() {
  const mine = ++turn;
  ready = false;
  nearby = null;
  $("category-label").hidden = !recipe().category;
  keep();
  draw();
  if (!photos.first || !photos.second) {
    say(whatIsMissing());
    return;
  }
  say("One moment.");
  pair = pairing();
  const begin = Date.now();
  try {
    for (;;) {
      const state = await (await ask("join", pair)).json();
      if (mine !== turn) return;
      if (state.ready) break;
      showProgress(state, Math.round((Date.now() - begin) / 1000));
      await new Promise((resolve) => setTimeout(resolve, PAUSE));
      if (mine !== turn) return;
    }
    ready = true;
    say("Click in one of the photos.");
    await findAll();
  } catch (error) {
    if (mine !== turn) return;
    fail(error);
    say("Choose another photo, recipe or matcher.");
  } finally {
    if (mine === turn) showProgress(null);
  }
}

// ---- points

async function answer(path, body) {
  const mine = turn;
  try {
    const found = await (await ask(path, { ...pair, ...body })).json();
    return mine === turn ? found : null;
  } catch (error) {
    if (mine !== turn) return null;
    if (error.status === 409) join(); // let go to make room: joined again, and asked again
    else fail(error);
    return null;
  }
}

function update(point, match) {
  if (!point.corrected) point.place[other(point.asked)] = match.place;
  Object.assign(point, { score: match.score, confidence: match.confidence, matched: match.matched });
}

async function findAll() {
  for (const side of SIDES) {
    const some = points.filter((point) => point.asked === side);
    if (!some.length) continue;
    const places = some.map((point) => point.place[side]);
    const found = await answer("match", { turned: side === "second", points: places });
    if (!found) return;
    some.forEach((point, index) => {
      if (point.place[side] === places[index]) update(point, found.matches[index]); // else it was moved, and asked for
    });
  }
  draw();
  if (selected) look(selected);
}

// Where one point lies, and what else is like it. While it is dragged, one question at a time.
async function look(point) {
  if (!ready) return; // all are asked for as soon as it is
  if (point.busy) {
    point.again = true;
    return;
  }
  point.busy = true;
  const found = await answer("match", { turned: point.asked === "second", points: [point.place[point.asked]], around: true });
  point.busy = false;
  if (point.again) {
    point.again = false;
    look(point);
  }
  if (!found || !points.includes(point)) return;
  fail(null);
  update(point, found.matches[0]);
  if (point === selected) nearby = found;
  draw();
  keep();
}

function add(side, place) {
  if (!ready) {
    say(photos.first && photos.second ? "Wait until the photos are encoded." : "Choose the other photo first.");
    return;
  }
  if (points.length >= setup.limits.points) {
    fail(new Error(`The list is full: ${setup.limits.points} points.`));
    return;
  }
  const number = Math.max(0, ...points.map((point) => point.number)) + 1;
  const point = { number, name: String(number), asked: side, place: { [side]: place, [other(side)]: null }, matched: true, corrected: false };
  points.push(point);
  select(point);
}

function select(point) {
  if (point !== selected) nearby = null;
  selected = point;
  draw();
  if (point) look(point);
}

function move(side, point, place) {
  point.place[side] = place;
  if (side !== point.asked) point.corrected = true;
  if (side === point.asked || point !== selected) select(point);
  else draw();
  keep();
}

function remove(point) {
  points = points.filter((one) => one !== point);
  select(selected === point ? null : selected);
  keep();
}

// ---- drawing

function draw() {
  for (const side of SIDES) {
    if (!photos[side]) continue;
    const shown = points.filter((point) => point.place[side]);
    const target = selected && side === other(selected.asked) ? nearby : null;
    stages[side].draw(shown.map((point) => ({
      number: point.number,
      place: point.place[side],
      label: `point ${point.name}, ${side} photo, ${numbers(point.place[side])}`,
      matched: point.matched || point.corrected,
      selected: point === selected,
    })), target && $("next").checked ? target.next : null);
    stages[side].warm(target && $("heat").checked ? target.heat : null);
  }
  list.draw(points, selected);
  for (const button of document.querySelectorAll("#list .buttons button")) button.disabled = !points.length || !ready;
  if (selected && ready && (selected.corrected || selected.score !== undefined)) say(sentenceOf(selected));
}

function sentenceOf(point) {
  const there = `${numbers(point.place[other(point.asked)])} in the ${other(point.asked)} photo`;
  if (point.corrected) return `Point ${point.name}: ${there}, corrected by hand.`;
  const sure = point.confidence === null ? "" : `, confidence ${point.confidence.toFixed(2)}`;
  return `Point ${point.name}: ${there}, score ${point.score.toFixed(3)}${sure}${point.matched ? "" : "; the matcher rejects it"}.`;
}

// ---- files

async function download(format) {
  const body = {
    ...pair,
    format,
    points: points.map((point) => ({
      name: point.name,
      turned: point.asked === "second",
      place: point.place[point.asked],
      corrected: point.corrected ? point.place[other(point.asked)] : null,
    })),
  };
  try {
    const file = await (await ask("export", body)).blob();
    const link = Object.assign(document.createElement("a"), { href: URL.createObjectURL(file), download: `matches.${format}` });
    link.click();
    setTimeout(() => URL.revokeObjectURL(link.href), 10_000);
    fail(null);
  } catch (error) {
    if (error.status === 409) join(); // let go meanwhile: joined again
    else fail(error);
  }
}

// ---- a page that is loaded again has its photos and points

function keep() {
  const fields = ({ number, name, asked, place, corrected }) => ({ number, name, asked, place, corrected });
  const state = { photos, recipe: $("recipe").value, matcher: $("matcher").value, category: $("category").value, points: points.map(fields) };
  try {
    sessionStorage.setItem("sdcorr", JSON.stringify(state));
  } catch { /* the browser keeps nothing: a page that is loaded again begins anew */ }
}

function kept() {
  try {
    return JSON.parse(sessionStorage.getItem("sdcorr") ?? "null");
  } catch {
    return null;
  }
}

async function restore() {
  const state = kept();
  const there = SIDES.map((side) => state?.photos[side]).filter((photo) => photo);
  if (!there.length || !setup.recipes.some((one) => one.name === state.recipe && one.ready)) return;
  for (const photo of there) {
    const answer = await fetch(`photos/${photo.id}`, { method: "HEAD" }).catch(() => null);
    if (!answer?.ok) return; // of another demo
  }
  Object.assign(photos, state.photos);
  points = state.points.map((point) => ({ ...point, matched: true }));
  for (const id of ["recipe", "matcher", "category"]) $(id).value = state[id];
}

async function begin() {
  document.addEventListener("dragover", (event) => event.preventDefault());
  document.addEventListener("drop", (event) => {
    if (event.defaultPrevented) return; // onto a photo's place
    event.preventDefault(); // the browser would leave the page
    if (stages.first) drop("first", event.dataTransfer.files);
  });
  try {
    setup = await getSetup();
  } catch (error) {
    fail(error);
    say("Start it, then load this page again.");
    return;
  }
  for (const one of setup.recipes) {
    const option = new Option(one.ready ? one.name : `${one.name} (weights not here)`, one.name);
    option.disabled = !one.ready;
    option.title = one.ready ? one.about : `To get its weights: sdcorr models download ${one.name}`;
    $("recipe").append(option);
  }
  $("matcher").append(new Option("of the recipe", ""), ...setup.matchers.map((name) => new Option(name, name)));
  $("recipe").value = setup.recipe;
  $("category").value = setup.category ?? "";
  setup.photos.forEach((photo, index) => { photos[SIDES[index]] = photo; });
  await restore();
  list = new List($("rows"), {
    select,
    rename: (point, name) => { point.name = name; draw(); keep(); },
    undo: (point) => { point.corrected = false; select(point); keep(); },
    remove,
  });
  const find = (number) => points.find((point) => point.number === number);
  for (const side of SIDES) {
    stages[side] = new Stage($(side), `${side} photo`, {
      choose: (files) => drop(side, files),
      click: (place) => add(side, place),
      move: (number, place) => move(side, find(number), place),
      select: (number) => select(find(number)),
      remove: (number) => remove(find(number)),
      take: (place) => move(side, selected, place),
    });
  }
  for (const side of SIDES) stages[side].show(photos[side]);
  for (const id of ["recipe", "matcher", "category"]) {
    $(id).addEventListener("change", () => { fail(null); join(); });
  }
  for (const id of ["heat", "next"]) $(id).addEventListener("change", draw);
  for (const button of document.querySelectorAll("[data-format]")) button.addEventListener("click", () => download(button.dataset.format));
  $("clear").addEventListener("click", () => {
    if (!confirm(`Remove all ${points.length} points?`)) return;
    points = [];
    select(null);
    keep();
  });
  await join();
}

begin();
