// The table of points. Rows stay the same elements: what is typed or has the focus must not vanish.

import { colourOf } from "./stage.js";

const short = (value) => (Math.round(value * 10) / 10 + 0).toFixed(1); // + 0: no -0.0

export const numbers = (place) => place ? place.map(short).join("  ") : "";

function button(text, action) {
  return Object.assign(document.createElement("button"), { type: "button", textContent: text, onclick: action });
}

export class List {
  // on: { select(point), rename(point, name), undo(point), remove(point) }
  constructor(body, on) {
    this.body = body;
    this.on = on;
    this.rows = new Map(); // point -> its row
  }

  draw(points, selected) {
    const there = new Set(points);
    for (const [point, row] of this.rows) {
      if (there.has(point)) continue;
      const next = row.line.nextElementSibling ?? row.line.previousElementSibling;
      if (row.line.contains(document.activeElement)) (next?.querySelector(".remove") ?? this.body.closest("section")).focus();
      row.line.remove();
      this.rows.delete(point);
    }
    for (const point of points) {
      if (!this.rows.has(point)) this.rows.set(point, this.newRow(point));
      this.fill(this.rows.get(point), point, point === selected);
    }
  }

  // Within the list alone: the page stays where it is.
  reveal(line) {
    const frame = this.body.closest(".rows"), head = this.body.previousElementSibling.offsetHeight;
    const above = line.offsetTop - head, below = line.offsetTop + line.offsetHeight - frame.clientHeight;
    if (frame.scrollTop > above) frame.scrollTop = above;
    else if (frame.scrollTop < below) frame.scrollTop = below;
  }

  newRow(point) {
    const row = {
      line: this.body.insertRow(),
      dot: button(point.number, () => this.on.select(point)),
      name: Object.assign(document.createElement("input"), { maxLength: 100 }),
      undo: button("Undo correction", () => this.on.undo(point)),
      remove: button("Remove", () => this.on.remove(point)),
    };
    row.dot.className = "dot";
    row.dot.style.setProperty("--colour", colourOf(point.number));
    row.remove.className = "remove";
    row.name.setAttribute("aria-label", `name of point ${point.number}`);
    row.name.addEventListener("change", () => {
      this.on.rename(point, row.name.value.trim() || String(point.number));
      row.name.value = point.name;
    });
    const cell = (...content) => {
      const one = row.line.insertCell();
      one.append(...content);
      return one;
    };
    cell(row.dot);
    cell(row.name);
    row.cells = [cell(), cell(), cell(), cell()];
    cell(row.undo, " ", row.remove);
    return row;
  }

  fill(row, point, selected) {
    const texts = [
      numbers(point.place.first),
      numbers(point.place.second),
      point.corrected ? "by hand" : point.score?.toFixed(3) ?? "",
      point.corrected ? "" : point.confidence?.toFixed(2) ?? "",
    ];
    const shown = [...texts, point.name, selected].join("\n");
    if (row.shown === shown) return; // of a thousand, one moves
    row.shown = shown;
    ["first", "second"].forEach((side, index) => row.cells[index].classList.toggle("asked", side === point.asked));
    texts.forEach((text, index) => { row.cells[index].textContent = text; });
    row.line.classList.toggle("selected", selected);
    if (selected) this.reveal(row.line);
    if (document.activeElement !== row.name) row.name.value = point.name;
    if (!point.corrected && document.activeElement === row.undo) row.dot.focus();
    row.undo.hidden = !point.corrected;
    row.dot.setAttribute("aria-label", `select point ${point.name}`);
    row.undo.setAttribute("aria-label", `undo the correction of point ${point.name}`);
    row.remove.setAttribute("aria-label", `remove point ${point.name}`);
  }
}
