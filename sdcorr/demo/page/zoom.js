// The part of a photo that is seen: all of it at first. A view scrolls over a sheet that is so many times as large.

const MOST = 16;
const STEP = 1.5; // of a button, a key, or a notch of the wheel
const MARGIN = 30; // px between what is shown and the view's edge

export class Zoom {
  // changed(factor) is called after each change; panned(far) when a drag of the sheet ends
  constructor(view, sheet, changed, panned) {
    Object.assign(this, { view, sheet, changed, panned, factor: 1 });
    view.addEventListener("wheel", (event) => {
      if (!event.ctrlKey && !event.metaKey) return; // scrolls
      event.preventDefault(); // the browser would enlarge the page
      const notches = event.deltaMode ? Math.sign(event.deltaY) : event.deltaY / 100;
      this.to(this.factor * STEP ** -notches, [event.clientX, event.clientY]);
    }, { passive: false });
    view.addEventListener("pointerdown", (event) => this.pan(event));
  }

  // What lies at a place of the window stays there; without one, what is in the middle.
  to(factor, at = null) {
    const frame = this.view.getBoundingClientRect(), before = this.sheet.getBoundingClientRect();
    const [x, y] = at ?? [frame.left + frame.width / 2, frame.top + frame.height / 2];
    const share = [(x - before.left) / before.width, (y - before.top) / before.height];
    this.factor = Math.min(Math.max(factor, 1), MOST);
    this.sheet.style.setProperty("--zoom", this.factor);
    this.view.classList.toggle("zoomed", this.factor > 1);
    const after = this.sheet.getBoundingClientRect();
    this.view.scrollLeft += after.left + share[0] * after.width - x;
    this.view.scrollTop += after.top + share[1] * after.height - y;
    this.changed(this.factor);
  }

  more(at) { this.to(this.factor * STEP, at); }

  less(at) { this.to(this.factor / STEP, at); }

  // Scroll as little as needed to see an element of the sheet.
  reveal(element) {
    if (this.factor === 1) return;
    const frame = this.view.getBoundingClientRect(), box = element.getBoundingClientRect();
    const beyond = (low, high, from, to) => Math.min(low - from - MARGIN, 0) + Math.max(high - to + MARGIN, 0);
    this.view.scrollLeft += beyond(box.left, box.right, frame.left, frame.right);
    this.view.scrollTop += beyond(box.top, box.bottom, frame.top, frame.bottom);
  }

  // A mouse drags the sheet; fingers scroll it anyway.
  pan(event) {
    if (this.factor === 1 || event.pointerType !== "mouse" || event.button !== 0 || event.target.closest("button")) return;
    const { view } = this, begin = [event.clientX, event.clientY], from = [view.scrollLeft, view.scrollTop];
    let far = false;
    view.setPointerCapture(event.pointerId);
    const move = (next) => {
      const [dx, dy] = [next.clientX - begin[0], next.clientY - begin[1]];
      far ||= Math.hypot(dx, dy) > 3;
      if (far) view.scrollTo(from[0] - dx, from[1] - dy);
    };
    view.addEventListener("pointermove", move);
    view.addEventListener("lostpointercapture", () => {
      view.removeEventListener("pointermove", move);
      this.panned(far);
    }, { once: true });
  }
}
