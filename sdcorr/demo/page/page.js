// The page: two photos, a list of points, and what the server says of them.

import { ask, getSetup, sendPhoto } from "./api.js";
import { List, numbers } from "./list.js";
import { fail, say, showProgress } from "./news.js";
import { pointsOf } from "./points.js";
import { Stage } from "./stage.js";

const SIDES = ["first", "second"];
const PAUSE = 400; // ms between two questions whether the photos are joined
const HINT = "Click in one of the photos.";
const CHOICES = ["recipe", "matcher", "category"]; // another one joins the photos anew
const SHOWN = ["heat", "next"]; // what is drawn, or not
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
let calibrated = false; // matches have a confidence
let turn = 0; // which pair of photos, recipe and matcher is wanted: what was asked for before is stale

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
  const mine = ++sent[side];
  say(`Sending ${file.name}.`);
  try {
    const photo = await sendPhoto(file);
    if (mine !== sent[side]) return;
    if (!replacePoints(side, photo)) {
      say("The photos are as they were.");
      return;
    }
    photos[side] = photo;
  } catch (error) {
    if (mine !== sent[side]) return;
    fail(error);
    say(photos.first && photos.second ? "The photos are as they were." : whatIsMissing());
    return;
  }
  select(null);
  stages[side].show(photos[side]);
  await join();
}

// What was clicked in the photo that stays is looked for in the new one; the rest went with the old one. Whether the
// user agrees to that. A photo that was let go, and is chosen again, has all its points.
function replacePoints(side, photo) {
  if (photo.digest === photos[side]?.digest) return true;
  const gone = points.filter((point) => point.asked === side), byHand = points.filter((point) => point.corrected && point.asked !== side);
  const told = [gone.length && `${gone.length} of ${points.length} points, clicked in the old one`, byHand.length && `corrections by hand (${byHand.length})`];
  if ((gone.length || byHand.length) && !confirm(`Another ${side} photo removes ${told.filter(Boolean).join(", and ")}. Go on?`)) return false;
  points = points.filter((point) => point.asked !== side);
  for (const point of points) {
    point.place[side] = null;
    point.corrected = false;
  }
  return true;
}

// One file, or two: the second is the other photo.
function drop(side, files) {
  if (!files.length) fail(new Error("What was dropped is no file; save the photo first."));
  if (files[0]) choose(side, files[0]);
  if (files[1]) choose(other(side), files[1]);
  if (files[2]) fail(new Error(`expected one photo or two, got ${files.length}; the first two are taken`));
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
  for (const point of points) point.score = point.confidence = undefined; // another recipe's
  $("category-label").hidden = !recipe().category;
  $("matcher").options[0].text = `${recipe().matcher}, the recipe's own`;
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
      if (state.ready) {
        calibrated = state.calibrated;
        break;
      }
      showProgress(state, Math.round((Date.now() - begin) / 1000));
      await new Promise((resolve) => setTimeout(resolve, PAUSE));
      if (mine !== turn) return;
    }
    ready = true;
    say(HINT);
    $("least-label").hidden = !calibrated;
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

// The confidence that matches must have, or null.
const least = () => (calibrated && $("least").value !== "" && $("least").validity.valid ? $("least").valueAsNumber : null);

async function answer(path, body) {
  const mine = turn, sure = least();
  try {
    const found = await (await ask(path, { ...pair, least: sure, ...body })).json();
    return mine === turn && sure === least() ? found : null;
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
  if (!photos.first || !photos.second) {
    say("Choose the other photo first.");
    return;
  }
  if (points.length >= setup.limits.points) {
    fail(new Error(`The list is full: ${setup.limits.points} points.`));
    return;
  }
  const point = newPoint({ asked: side, place: { [side]: place, [other(side)]: null } });
  select(point); // looked for once the photos are joined
  keep();
}

function newPoint(fields) {
  const number = Math.max(0, ...points.map((point) => point.number)) + 1;
  const point = { name: String(number), corrected: false, ...fields, number, matched: true };
  points.push(point);
  return point;
}

function select(point) {
  if (point !== selected) nearby = null;
  selected = point;
  draw();
  if (!point) return;
  for (const side of SIDES) stages[side].reveal(point.number);
  look(point);
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
      asked: side === point.asked,
      matched: point.matched || point.corrected,
      selected: point === selected,
    })), target && $("next").checked ? target.next : null);
    stages[side].warm(target && $("heat").checked ? target.heat : null);
  }
  list.draw(points, selected);
  for (const button of document.querySelectorAll("#list .buttons button")) button.disabled = !points.length || !ready;
  if (ready && !selected) say(HINT);
  else if (ready && (selected.corrected || selected.score !== undefined)) say(sentenceOf(selected));
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
    least: least(),
    format,
    points: points.map((point) => ({
      name: point.name,
      turned: point.asked === "second",
      place: point.place[point.asked],
      corrected: point.corrected ? point.place[other(point.asked)] : null,
    })),
  };
  const stems = SIDES.map((side) => photos[side].name.replace(/(.)\.[^.]+$/, "$1"));
  try {
    const file = await (await ask("export", body)).blob();
    const link = Object.assign(document.createElement("a"), { href: URL.createObjectURL(file), download: `${stems.join("-")}.${format}` });
    link.click();
    setTimeout(() => URL.revokeObjectURL(link.href), 10_000);
    fail(null);
  } catch (error) {
    if (error.status === 409) join(); // let go meanwhile: joined again
    else fail(error);
  }
}

async function load(file) {
  try {
    if (!photos.first || !photos.second) throw new Error("choose both photos first");
    const more = pointsOf(await file.text(), photos);
    const all = points.length + more.length;
    if (all > setup.limits.points) throw new Error(`with its points the list would hold ${all}; it takes ${setup.limits.points}`);
    for (const { name, ...point } of more) newPoint(name ? { name, ...point } : point);
  } catch (error) {
    fail(new Error(`No points were read from ${file.name}: ${error.message}`));
    return;
  }
  fail(null);
  draw();
  keep();
  if (ready) findAll();
}

// ---- a page that is loaded again has its photos and points

function keep() {
  const fields = ({ number, name, asked, place, corrected }) => ({ number, name, asked, place, corrected });
  const chosen = Object.fromEntries([...CHOICES, "least"].map((id) => [id, $(id).value]));
  const shown = Object.fromEntries(SHOWN.map((id) => [id, $(id).checked]));
  const state = { photos, chosen, shown, points: points.map(fields) };
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
  const state = kept(), found = {};
  if (!state?.chosen || !SIDES.some((side) => state.photos[side]) || !setup.recipes.some((one) => one.name === state.chosen.recipe && one.ready)) return;
  for (const side of SIDES) {
    const photo = state.photos[side];
    if (!photo) continue;
    const answer = await fetch(`photos/${photo.id}`, { method: "HEAD" }).catch(() => null);
    const same = photos[side]?.digest === photo.digest ? photos[side] : null; // a demo that began anew calls it otherwise
    found[side] = answer?.ok ? photo : same;
    if (!found[side]) return; // of another demo
  }
  const before = state.points.map((point) => ({ ...point, matched: true }));
  for (const id of [...CHOICES, "least"]) $(id).value = state.chosen[id];
  for (const id of SHOWN) $(id).checked = state.shown[id];
  Object.assign(photos, { first: null, second: null }, found);
  points = before;
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
  $("matcher").append(new Option("", ""), ...setup.matchers.map((name) => new Option(name, name)));
  $("recipe").value = setup.recipe;
  $("category").value = setup.category ?? "";
  setup.photos.forEach((photo, index) => { photos[SIDES[index]] = photo; });
  await restore().catch(() => {}); // kept by another version: the page begins anew
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
  for (const id of CHOICES) $(id).addEventListener("change", () => { fail(null); join(); });
  for (const id of SHOWN) $(id).addEventListener("change", () => { draw(); keep(); });
  $("least").addEventListener("change", () => {
    if (!$("least").reportValidity()) return;
    keep();
    findAll();
  });
  $("load").addEventListener("change", () => {
    if ($("load").files.length) load($("load").files[0]);
    $("load").value = "";
  });
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
