// One photo with its markers and heat map. Places are [x, y] in pixels of the original photo, and
// (0, 0) is the centre of the top left pixel: the photo spans -0.5 to width - 0.5.

import { Zoom } from "./zoom.js";

// Okabe and Ito's palette without black, as in the pictures; numbers tell the rest
const COLOURS = ["#E69F00", "#56B4E9", "#009E73", "#F0E442", "#0072B2", "#D55E00", "#CC79A7"];
// dark blue, grey, yellow: lightness and blue against yellow, which all readers see
const RAMP = [[0, 34, 78], [125, 124, 120], [254, 232, 56]];
const ARROWS = { ArrowLeft: [-1, 0], ArrowRight: [1, 0], ArrowUp: [0, -1], ArrowDown: [0, 1] };

export function nearestOn([x, y], { width, height }) {
  return [Math.min(Math.max(x, -0.5), width - 0.5), Math.min(Math.max(y, -0.5), height - 0.5)];
}

export const colourOf = (number) => COLOURS[(number - 1) % COLOURS.length];

function make(tag, fields = {}, ...children) {
  const element = Object.assign(document.createElement(tag), fields);
  element.append(...children);
  return element;
}

export class Stage {
  // on: { choose(files), click(place), move(number, place), select(number), remove(number), take(place) }
  constructor(section, title, on) {
    this.on = on;
    this.photo = null;
    this.dragged = this.held = false;
    this.cursor = [0, 0];
    this.shown = new Map(); // number -> { point, button }
    this.nearby = null;
    this.sharp = null; // the photo of which all pixels are shown
    this.file = make("input", { type: "file", accept: "image/*" });
    this.caption = make("span", { className: "caption" });
    this.drop = make("p", { className: "drop", textContent: `Drop the ${title} here, or choose one.` });
    this.image = make("img", { alt: "", draggable: false });
    this.heat = make("canvas", { className: "heat" });
    this.cross = make("div", { className: "cross", hidden: true });
    this.diamonds = make("div");
    this.marks = make("div");
    this.sheet = make("div", { className: "sheet" },
      make("div", { className: "clip" }, this.image, this.heat), this.cross, this.diamonds, this.marks);
    this.view = make("div", { className: "view", tabIndex: 0, hidden: true }, this.sheet);
    this.view.setAttribute("role", "application");
    this.zoom = new Zoom(this.view, this.sheet, () => this.zoomed(), (far) => this.letGo(far));
    this.less = make("button", { type: "button", textContent: "−", onclick: () => this.zoom.less() });
    this.less.setAttribute("aria-label", `zoom ${title} out`);
    this.more = make("button", { type: "button", textContent: "+", onclick: () => this.zoom.more() });
    this.more.setAttribute("aria-label", `zoom ${title} in`);
    this.factor = make("span");
    this.zooms = make("span", { className: "zooms", hidden: true }, this.less, " ", this.factor, " ", this.more);
    const label = make("label", { className: "button" }, `Choose ${title}`, this.file);
    section.append(make("div", { className: "bar" }, label, this.zooms, this.caption), this.drop, this.view);
    this.listen(section);
  }

  listen(section) {
    this.file.addEventListener("change", () => {
      if (this.file.files.length) this.on.choose([...this.file.files]);
      this.file.value = ""; // the same file may be chosen again
    });
    section.addEventListener("dragover", (event) => {
      event.preventDefault();
      section.classList.add("over");
    });
    section.addEventListener("dragleave", () => section.classList.remove("over"));
    section.addEventListener("drop", (event) => {
      event.preventDefault();
      section.classList.remove("over");
      this.on.choose([...event.dataTransfer.files]);
    });
    this.view.addEventListener("click", (event) => {
      if (this.dragged || event.target.closest("button")) return;
      this.cursor = this.placeOf(event); // the keys go on from here
      this.on.click(this.cursor);
    });
    this.drop.addEventListener("click", () => this.file.click());
    this.view.addEventListener("keydown", (event) => {
      if (event.target === this.view) this.steer(event);
      this.enlarge(event);
    });
    this.view.addEventListener("focus", () => { this.cross.hidden = !this.view.matches(":focus-visible"); });
    this.view.addEventListener("blur", () => { this.cross.hidden = true; });
  }

  show(photo) {
    this.photo = photo;
    this.drop.hidden = photo !== null;
    this.view.hidden = this.zooms.hidden = photo === null;
    this.caption.textContent = photo ? `${photo.name}, ${photo.width} × ${photo.height}` : "";
    if (!photo) return;
    this.cursor = [(photo.width - 1) / 2, (photo.height - 1) / 2];
    this.put(this.cross, this.cursor);
    this.view.style.setProperty("--ratio", photo.width / photo.height);
    this.view.setAttribute("aria-label",
      `${photo.name}: arrow keys move the cross, Enter sets a point, + and - zoom`);
    this.image.src = `photos/${photo.id}`;
    this.image.alt = photo.name;
    this.zoom.to(1);
  }

  zoomed() {
    const { photo, zoom: { factor } } = this;
    if (factor === 1 && document.activeElement === this.less) this.more.focus();
    this.less.disabled = factor === 1;
    this.factor.textContent = factor === 1 ? "" : `${factor.toFixed(1)} ×`;
    if (factor > 1 && photo.reduced && this.sharp !== photo) this.sharpen(photo);
  }

  // Show all pixels of a photo, once they are here.
  sharpen(photo) {
    this.sharp = photo;
    const whole = make("img", { src: `photos/${photo.id}?whole` });
    whole.addEventListener("load", () => {
      if (this.photo === photo) this.image.src = whole.src;
    });
    whole.addEventListener("error", () => { this.sharp = null; }); // asked for again by the next step
  }

  letGo(far) {
    this.dragged = far; // the click that may follow sets no point
    setTimeout(() => { this.dragged = false; });
  }

  enlarge(event) {
    if (event.ctrlKey || event.altKey || event.metaKey) return; // the browser's own
    const zoom = { "+": "more", "=": "more", "-": "less" }[event.key];
    if (zoom) this.zoom[zoom](this.pivot(event.target));
    else if (event.key === "0") this.zoom.to(1);
    else return;
    event.preventDefault();
  }

  // Where in the window the keyboard is: at the cross, or at a marker; null is nowhere.
  pivot(focused) {
    const held = focused === this.view ? this.cross : focused;
    if (held.hidden) return null;
    this.zoom.reveal(held);
    const box = held.getBoundingClientRect();
    return [box.left + box.width / 2, box.top + box.height / 2];
  }

  placeOf(event) {
    const frame = this.sheet.getBoundingClientRect();
    return this.onPhoto([
      (event.clientX - frame.left) / frame.width * this.photo.width - 0.5,
      (event.clientY - frame.top) / frame.height * this.photo.height - 0.5,
    ]);
  }

  onPhoto(place) {
    return nearestOn(place, this.photo);
  }

  put(element, [x, y]) {
    element.style.left = `${(x + 0.5) / this.photo.width * 100}%`;
    element.style.top = `${(y + 0.5) / this.photo.height * 100}%`;
  }

  steer(event) {
    if (event.ctrlKey || event.altKey || event.metaKey) return; // the browser's
    if (event.key in ARROWS) {
      const step = event.shiftKey ? 1 : Math.max(this.photo.width, this.photo.height) / 50 / this.zoom.factor;
      this.cursor = this.onPhoto(this.cursor.map((value, axis) => value + ARROWS[event.key][axis] * step));
      this.put(this.cross, this.cursor);
      this.cross.hidden = false;
      this.zoom.reveal(this.cross);
    } else if (event.key === "Enter" || event.key === " ") {
      if (!event.repeat) this.on.click(this.cursor);
    } else {
      return;
    }
    event.preventDefault();
  }

  // points: [{ number, place, label, asked, matched, selected }]; nearby: [{ place, score }], best first.
  // Markers stay the same elements: one that is dragged or has the focus must not vanish.
  draw(points, nearby) {
    const had = this.view.contains(document.activeElement);
    const numbers = new Set(points.map((point) => point.number));
    for (const [number, { button }] of this.shown) {
      if (numbers.has(number)) continue;
      button.remove();
      this.shown.delete(number);
    }
    points.forEach((point) => this.drawMark(point));
    if (nearby !== this.nearby) {
      this.diamonds.replaceChildren(...(nearby ?? []).map((one, rank) => this.diamond(one, rank + 1)));
      this.nearby = nearby;
    }
    if (had && !this.view.contains(document.activeElement)) this.view.focus({ preventScroll: true });
  }

  drawMark(point) {
    let { point: before, button } = this.shown.get(point.number) ?? {};
    if (before && Object.keys(point).every((key) => point[key] === before[key])) return; // of a thousand, one moves
    if (!button) {
      button = this.newMark(point.number);
      this.marks.append(button);
    }
    this.shown.set(point.number, { point, button });
    button.setAttribute("aria-label", point.label);
    button.classList.toggle("selected", point.selected);
    button.classList.toggle("rejected", !point.matched);
    button.classList.toggle("found", !point.asked);
    button.classList.toggle("left", point.place[0] > 0.85 * this.photo.width); // its number
    this.put(button, point.place);
    const moved = String(point.place.map(Math.round)) !== String(before?.place.map(Math.round));
    if (point.selected && moved && !this.held) this.zoom.reveal(button);
  }

  reveal(number) {
    const { button } = this.shown.get(number) ?? {};
    if (button && !this.held) this.zoom.reveal(button);
  }

  newMark(number) {
    const button = make("button", { type: "button", className: "mark" }, make("span", { textContent: number }));
    button.style.setProperty("--colour", colourOf(number));
    button.addEventListener("click", () => { if (!this.dragged) this.on.select(number); });
    button.addEventListener("keydown", (event) => this.nudge(event, number));
    button.addEventListener("pointerdown", (event) => this.drag(event, button, number));
    return button;
  }

  nudge(event, number) {
    if (event.ctrlKey || event.altKey || event.metaKey) return;
    if (event.key in ARROWS) {
      const step = event.shiftKey ? 10 : 1;
      const { place } = this.shown.get(number).point;
      this.on.move(number, this.onPhoto(place.map((value, axis) => value + ARROWS[event.key][axis] * step)));
    } else if (event.key === "Delete" || event.key === "Backspace") {
      this.on.remove(number);
    } else {
      return;
    }
    event.preventDefault();
  }

  // the marker holds the pointer until it is let go, also beyond the photo and the window
  drag(event, button, number) {
    if (event.button !== 0 || !event.isPrimary) return;
    button.setPointerCapture(event.pointerId);
    this.held = true; // the photo stays under the pointer
    const begin = [event.clientX, event.clientY];
    const at = this.placeOf(event);
    const grip = this.shown.get(number).point.place.map((value, axis) => value - at[axis]);
    let far = false;
    const move = (next) => {
      far ||= Math.hypot(next.clientX - begin[0], next.clientY - begin[1]) > 3;
      if (far) this.on.move(number, this.onPhoto(this.placeOf(next).map((value, axis) => value + grip[axis])));
    };
    button.addEventListener("pointermove", move);
    button.addEventListener("lostpointercapture", () => {
      button.removeEventListener("pointermove", move);
      this.held = false;
      this.letGo(far);
      this.zoom.reveal(button);
    }, { once: true });
  }

  diamond(one, rank) {
    const button = make("button", { type: "button", className: "next" }, make("span", { textContent: rank }));
    button.title = `score ${one.score.toFixed(3)}`;
    button.setAttribute("aria-label", `next best place ${rank}, score ${one.score.toFixed(3)}: take it`);
    const place = this.onPhoto(one.place); // a thin photo's cells reach beyond it
    this.put(button, place);
    button.addEventListener("click", () => this.on.take(place));
    return button;
  }

  // heat: { shape: [rows, columns], extent: [left, right, bottom, top], levels: base64 }, or null
  warm(heat) {
    this.heat.hidden = heat === null;
    this.image.classList.toggle("under", heat !== null);
    if (!heat) return;
    const [rows, columns] = heat.shape;
    const [left, right, bottom, top] = heat.extent;
    const levels = Uint8Array.from(atob(heat.levels), (letter) => letter.charCodeAt(0));
    const image = new ImageData(columns, rows);
    levels.forEach((level, cell) => {
      const step = level / 255 * (RAMP.length - 1);
      const from = Math.min(Math.floor(step), RAMP.length - 2);
      const colour = RAMP[from].map((value, part) => value + (RAMP[from + 1][part] - value) * (step - from));
      image.data.set([...colour, 153], cell * 4);
    });
    Object.assign(this.heat, { width: columns, height: rows });
    this.heat.getContext("2d").putImageData(image, 0, 0);
    this.put(this.heat, [left, top]);
    this.heat.style.width = `${(right - left) / this.photo.width * 100}%`;
    this.heat.style.height = `${(bottom - top) / this.photo.height * 100}%`;
  }
}
