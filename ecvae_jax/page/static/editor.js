// The landmarks over the picture: an SVG whose points are dragged with a pointer or moved with the keyboard.

const SVG = "http://www.w3.org/2000/svg";
const REACH = 28; // CSS pixels from the pointer to the nearest point
const SOFT = 0.045; // crop units: neighbors follow with a Gaussian weight of this deviation
const STEP = 0.004;

const make = (name, attributes) => {
  const node = document.createElementNS(SVG, name);
  for (const [key, value] of Object.entries(attributes)) node.setAttribute(key, value);
  return node;
};

export class Editor {
  /** `on.start()` comes before a drag; `on.move(changes, event)` gets [[index, dx, dy], …] in crop units. */
  constructor(svg, about, on) {
    Object.assign(this, { svg, about, on, soft: true, active: 0, dragged: null });
    this.face = new Float32Array(2 * about.points);
    this.lines = Object.entries(about.boundaries).map(([name, curve]) => {
      const line = make("polyline", { class: `line ${name}` });
      svg.append(line);
      return [line, curve];
    });
    const names = pointNames(about.boundaries);
    this.points = Array.from({ length: about.points }, (_, k) => {
      const label = `${names[k] ?? "pupil"}, point ${k + 1} of ${about.points}`;
      const point = make("circle", { class: "point", r: 0.0065, tabindex: k ? -1 : 0, role: "button", "aria-label": label });
      point.addEventListener("focus", () => this.activate(k));
      svg.append(point);
      return point;
    });
    svg.addEventListener("pointerdown", (event) => this.start(event));
    svg.addEventListener("pointermove", (event) => this.dragTo(event));
    for (const kind of ["pointerup", "pointercancel"]) svg.addEventListener(kind, (event) => this.stop(event));
    svg.addEventListener("keydown", (event) => this.key(event));
  }

  /** Shows landmarks in crop units. */
  show(face) {
    this.face = face;
    this.points.forEach((point, k) => {
      point.setAttribute("cx", face[2 * k]);
      point.setAttribute("cy", face[2 * k + 1]);
    });
    for (const [line, curve] of this.lines)
      line.setAttribute("points", curve.map((k) => `${face[2 * k].toFixed(4)},${face[2 * k + 1].toFixed(4)}`).join(" "));
  }

  place(event) {
    const box = this.svg.getBoundingClientRect();
    return [(event.clientX - box.left) / box.width, (event.clientY - box.top) / box.height, REACH / box.width];
  }

  start(event) {
    if (event.button !== 0) return;
    const [x, y, reach] = this.place(event);
    let nearest = -1, distance = reach;
    for (let k = 0; k < this.points.length; k++) {
      const away = Math.hypot(this.face[2 * k] - x, this.face[2 * k + 1] - y);
      if (away < distance) [nearest, distance] = [k, away];
    }
    if (nearest < 0) return;
    event.preventDefault();
    this.svg.setPointerCapture(event.pointerId);
    this.activate(nearest);
    this.points[nearest].focus({ preventScroll: true });
    this.dragged = { point: nearest, x, y, weights: this.weights(nearest, event.altKey) };
    this.svg.classList.add("dragging");
    this.on.start();
  }

  dragTo(event) {
    if (!this.dragged) return;
    const [x, y] = this.place(event);
    const dx = x - this.dragged.x, dy = y - this.dragged.y;
    Object.assign(this.dragged, { x, y });
    if (dx || dy) this.on.move(this.dragged.weights.map(([k, w]) => [k, w * dx, w * dy]), event);
  }

  stop() {
    this.dragged = null;
    this.svg.classList.remove("dragging");
  }

  /** Returns the points that follow point k, with their weights; alone: k only. */
  weights(k, alone) {
    if (alone || !this.soft) return [[k, 1]];
    return this.points
      .map((_, i) => [i, Math.exp(-((this.face[2 * i] - this.face[2 * k]) ** 2 + (this.face[2 * i + 1] - this.face[2 * k + 1]) ** 2) / (2 * SOFT ** 2))])
      .filter(([, weight]) => weight > 0.02);
  }

  activate(k) {
    this.points[this.active].setAttribute("tabindex", -1);
    this.points[this.active].classList.remove("active");
    this.active = k;
    this.points[k].setAttribute("tabindex", 0);
    this.points[k].classList.add("active");
  }

  key(event) {
    const count = this.points.length;
    const next = { PageDown: 1, ".": 1, PageUp: -1, ",": -1 }[event.key];
    const to = next ? (this.active + next + count) % count : { Home: 0, End: count - 1 }[event.key];
    const move = { ArrowLeft: [-1, 0], ArrowRight: [1, 0], ArrowUp: [0, -1], ArrowDown: [0, 1] }[event.key];
    if (to === undefined && !move) return;
    event.preventDefault();
    if (to !== undefined) return this.points[to].focus({ preventScroll: true });
    if (!event.repeat) this.on.start();
    const step = STEP * (event.shiftKey ? 5 : 1);
    this.on.move(this.weights(this.active, event.altKey).map(([k, w]) => [k, w * step * move[0], w * step * move[1]]), event);
  }
}

/** Returns a readable name per point, by the first boundary that holds it. */
function pointNames(boundaries) {
  const names = {};
  for (const [name, curve] of Object.entries(boundaries))
    for (const k of curve) names[k] ??= name.replace("contour", "jaw").replaceAll("_", " ");
  return names;
}
