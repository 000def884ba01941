// The part of a photo that is seen: all of it at first. A view scrolls over a sheet that is so many times as large.

const MOST = 16;
const STEP = 1.5; // of a button, a key, or a notch of the wheel
const NOTCH = 50; // px that a notch scrolls at least; trackpads tell of fewer at a time
const MARGIN = 30; // px between what was out of sight and the view's edge

export class Zoom {
  // changed(factor) is called after each change; panned(far) when a drag of the sheet ends
  constructor(view, sheet, changed, panned) {
    Object.assign(this, { view, sheet, changed, panned, factor: 1, middle: [0.5, 0.5] });
    view.addEventListener("wheel", (event) => {
      if (!event.ctrlKey && !event.metaKey) return; // scrolls
      event.preventDefault(); // the browser would enlarge the page
      const { deltaY: scrolled } = event, notch = event.deltaMode || Math.abs(scrolled) >= NOTCH;
      this.to(this.factor * (notch ? STEP ** -Math.sign(scrolled) : Math.exp(-scrolled / 100)), [event.clientX, event.clientY]);
    }, { passive: false });
    view.addEventListener("scroll", () => { this.middle = this.shareOf(this.centre()); });
    new ResizeObserver(() => this.put(this.middle, this.centre())).observe(view);
    view.addEventListener("pointerdown", (event) => this.pan(event));
  }

  // What lies at a place of the window stays there; without one, what is in the middle.
  to(factor, at = null) {
    const place = at ?? this.centre(), share = this.shareOf(place);
    this.factor = factor < 1.001 ? 1 : Math.min(factor, MOST); // rounding is no zoom
    this.sheet.style.setProperty("--zoom", this.factor);
    this.view.classList.toggle("zoomed", this.factor > 1);
    this.put(share, place);
    this.grip = null;
    this.changed(this.factor);
  }

  centre() {
    const frame = this.view.getBoundingClientRect();
    return [frame.left + frame.width / 2, frame.top + frame.height / 2];
  }

  // Where on the sheet a place of the window is, each 0 to 1.
  shareOf([x, y]) {
    const box = this.sheet.getBoundingClientRect();
    return [(x - box.left) / box.width, (y - box.top) / box.height];
  }

  put(share, [x, y]) {
    const box = this.sheet.getBoundingClientRect();
    this.view.scrollLeft += box.left + share[0] * box.width - x;
    this.view.scrollTop += box.top + share[1] * box.height - y;
  }

  more(at) { this.to(this.factor * STEP, at); }

  less(at) { this.to(this.factor / STEP, at); }

  // Scroll to see an element of the sheet, if it is out of sight.
  reveal(element) {
    if (this.factor === 1) return;
    const frame = this.view.getBoundingClientRect(), box = element.getBoundingClientRect();
    const beyond = (low, high, from, to) => (low < from ? low - from - MARGIN : high > to ? high - to + MARGIN : 0);
    this.view.scrollLeft += beyond(box.left, box.right, frame.left, frame.right);
    this.view.scrollTop += beyond(box.top, box.bottom, frame.top, frame.bottom);
  }

  // A mouse drags the sheet; fingers scroll it anyway.
  pan(event) {
    if (this.factor === 1 || event.pointerType !== "mouse" || event.button !== 0 || event.target.closest("button")) return;
    const { view } = this, begin = [event.clientX, event.clientY];
    let far = false, last = begin;
    this.grip = null;
    view.setPointerCapture(event.pointerId);
    const move = (next) => {
      far ||= Math.hypot(next.clientX - begin[0], next.clientY - begin[1]) > 3;
      if (!far) return;
      this.grip ??= { at: last, from: [view.scrollLeft, view.scrollTop] };
      last = [next.clientX, next.clientY];
      const { at, from } = this.grip; // until it is zoomed meanwhile
      view.scrollTo(from[0] + at[0] - next.clientX, from[1] + at[1] - next.clientY);
    };
    view.addEventListener("pointermove", move);
    view.addEventListener("lostpointercapture", () => {
      view.removeEventListener("pointermove", move);
      this.panned(far);
    }, { once: true });
  }
}
