// Charts of spectra over wavelength, as SVG.

const SVG = "http://www.w3.org/2000/svg";

/** An SVG element with attributes; texts are set as text, never as markup. */
function draw(parent, name, attributes, text) {
  const node = document.createElementNS(SVG, name);
  for (const [key, value] of Object.entries(attributes)) node.setAttribute(key, value);
  if (text !== undefined) node.textContent = text;
  parent.append(node);
  return node;
}

/** About `count` round numbers between two. */
function ticks(low, high, count) {
  const rough = (high - low) / Math.max(1, count);
  const power = 10 ** Math.floor(Math.log10(rough));
  const step = power * [1, 2, 2.5, 5, 10].find((m) => m * power >= rough * 0.999);
  const found = [];
  const slack = 0.005 * (high - low);  // a tick at 400 for bands from 400.02
  for (let k = Math.ceil((low - slack) / step); k * step <= high + slack; k++) found.push(k * step);
  return { found, digits: Math.max(0, Math.ceil(-Math.log10(step) - 1e-9) + (step / power === 2.5 ? 1 : 0)) };
}

class Chart {
  /** @param box element to fill. @param onBand called with the band that is pointed at, or null. */
  constructor(box, wavelengths, gaps, onBand = () => {}) {
    Object.assign(this, { box, wavelengths, gaps: new Set(gaps), onBand, lines: [], area: null, band: null });
    this.svg = draw(box, "svg", { role: "img", tabindex: 0 });
    this.axes = draw(this.svg, "g", { class: "axes" });
    this.curves = draw(this.svg, "g", { class: "curves" });
    this.guide = draw(this.svg, "g", { class: "guide" });
    this.svg.addEventListener("pointermove", (event) => this.point(this.bandAt(event)));
    this.svg.addEventListener("pointerleave", () => this.point(null));
    this.svg.addEventListener("blur", () => this.point(null));
    this.svg.addEventListener("keydown", (event) => this.key(event));
    new ResizeObserver(() => this.render()).observe(box);
  }

  /** lines: [{values, name, class}], area: {low, high} or null, range: [bottom, top], label: what it shows, in words. */
  show({ lines, area = null, range, label }) {
    Object.assign(this, { lines, area, range });
    this.svg.setAttribute("aria-label", label);
    this.render();
  }

  x(nm) {
    const [first, last] = [this.wavelengths[0], this.wavelengths[this.wavelengths.length - 1]];
    return this.left + ((nm - first) / (last - first || 1)) * (this.width - this.left - this.right);
  }

  y(value) {
    const [low, high] = this.range;
    return this.height - this.bottom - ((value - low) / (high - low || 1)) * (this.height - this.bottom - this.top);
  }

  render() {
    const width = this.box.clientWidth, height = this.box.clientHeight;
    if (!this.range || width < 50 || height < 50) return;
    Object.assign(this, { width, height, left: 40, right: 12, top: 10, bottom: 40 });
    this.svg.setAttribute("viewBox", `0 0 ${width} ${height}`);
    this.renderAxes();
    this.curves.replaceChildren();
    if (this.area) draw(this.curves, "path", { class: "area", d: this.areaPath(this.area) });
    for (const line of this.lines) {
      draw(this.curves, "path", { class: `line ${line.class}`, d: this.path(line.values) });
    }
    this.point(this.band);
  }

  renderAxes() {
    this.axes.replaceChildren();
    const { left, right, top, bottom, width, height } = this;
    const across = ticks(this.wavelengths[0], this.wavelengths[this.wavelengths.length - 1], (width - left - right) / 70);
    const up = ticks(this.range[0], this.range[1], (height - top - bottom) / 38);
    for (const value of up.found) {
      const y = this.y(value);
      draw(this.axes, "line", { x1: left, x2: width - right, y1: y, y2: y, class: value === 0 ? "zero" : "grid" });
      draw(this.axes, "text", { x: left - 7, y: y + 4, "text-anchor": "end" }, value.toFixed(up.digits));
    }
    for (const nm of across.found) {
      draw(this.axes, "text", { x: this.x(nm), y: height - bottom + 20, "text-anchor": "middle" }, nm.toFixed(0));
    }
    this.renderLight(height - bottom + 3);
    draw(this.axes, "text", { x: width - right, y: height - 4, "text-anchor": "end", class: "unit" }, "wavelength in nm");
    draw(this.axes, "text", { x: left, y: height - 4, class: "unit" }, "reflectance");
  }

  /** The visible part of the axis in its colours. */
  renderLight(y) {
    const colours = [[400, "#5b2a86"], [450, "#3558c9"], [490, "#2d9fd0"], [530, "#3aa655"], [580, "#e2c32d"], [610, "#e58a2b"],
      [660, "#c8372d"], [700, "#7d1d1d"]];
    const last = this.wavelengths[this.wavelengths.length - 1];
    for (let k = 0; k + 1 < colours.length; k++) {
      const from = Math.max(colours[k][0], this.wavelengths[0]), to = Math.min(colours[k + 1][0], last);
      if (to > from) draw(this.axes, "rect", { x: this.x(from), y, width: this.x(to) - this.x(from) + 0.3, height: 3, fill: colours[k][1] });
    }
  }

  /** A curve, open where bands were taken out. */
  path(values) {
    let d = "";
    this.wavelengths.forEach((nm, c) => {
      d += `${c === 0 || this.gaps.has(c) ? "M" : "L"}${this.x(nm).toFixed(1)},${this.y(values[c]).toFixed(1)}`;
    });
    return d;
  }

  areaPath({ low, high }) {
    const ends = [0, ...this.gaps, this.wavelengths.length];
    let d = "";
    for (let k = 0; k + 1 < ends.length; k++) {
      const bands = [];
      for (let c = ends[k]; c < ends[k + 1]; c++) bands.push(c);
      const at = (values) => (c) => `${this.x(this.wavelengths[c]).toFixed(1)},${this.y(values[c]).toFixed(1)}`;
      d += `M${bands.map(at(high)).join("L")}L${bands.reverse().map(at(low)).join("L")}Z`;
    }
    return d;
  }

  bandAt(event) {
    const box = this.svg.getBoundingClientRect();
    const x = event.clientX - box.left;
    let best = 0;
    this.wavelengths.forEach((nm, c) => {
      if (Math.abs(this.x(nm) - x) < Math.abs(this.x(this.wavelengths[best]) - x)) best = c;
    });
    return best;
  }

  key(event) {
    const by = { ArrowLeft: -1, ArrowRight: 1 }[event.key];
    if (!by) return;
    event.preventDefault();
    const last = this.wavelengths.length - 1;
    this.point(this.band === null ? (by > 0 ? 0 : last) : Math.min(last, Math.max(0, this.band + by * (event.shiftKey ? 10 : 1))));
  }

  /** Mark a band in all curves. */
  point(band) {
    this.band = band;
    this.guide.replaceChildren();
    this.onBand(band);
    if (band === null || !this.range) return;
    const x = this.x(this.wavelengths[band]);
    draw(this.guide, "line", { x1: x, x2: x, y1: this.top, y2: this.height - this.bottom });
    for (const line of this.lines) draw(this.guide, "circle", { cx: x, cy: this.y(line.values[band]), r: 3.5, class: `dot ${line.class}` });
    const right = x > this.width / 2;
    draw(this.guide, "text", { x: x + (right ? -7 : 7), y: this.top + 10, "text-anchor": right ? "end" : "start" },
      `${this.wavelengths[band].toFixed(1)} nm`);
  }
}
