// Choosing a pixel: tiles, enlarged view, spectrum, materials, keyboard, and the address "#pixel=picture,column,row".

/** An element with a class and a text. */
function make(name, className = "", text) {
  const node = document.createElement(name);
  if (className) node.className = className;
  if (text !== undefined) node.textContent = text;
  return node;
}

const byId = (id) => document.getElementById(id);

class Explorer {
  constructor(data, spectra) {
    Object.assign(this, { data, spectra, picture: 0, column: 0, row: 0 });
    this.tiles = [...document.querySelectorAll(".tile")].sort((a, b) => a.dataset.picture - b.dataset.picture);
    this.order = [...document.querySelectorAll(".tile")].map((tile) => Number(tile.dataset.picture));
    this.marks = this.tiles.map((tile) => tile.appendChild(make("span", "mark")));
    this.twins = this.tiles.map((tile) => tile.appendChild(make("span", "mark twin")));
    document.querySelector(".inspector").hidden = false;
    this.chart = new Chart(byId("chart"), data.wavelengths, data.gaps, (band) => this.showValues(band));
    byId("even").checked = !data.pictures.some((p) => p.kind === "real"); // an endmember is brighter than its mixtures
    this.prepareView();
    this.prepareMaterials();
    this.listen();
  }

  // ---- what is there

  label(k) {
    const p = this.data.pictures[k];
    return `${this.data.rows[p.row]}, ${p.kind} ${p.number}`;
  }

  /** Column and row of the image for a place in the grid. */
  place(k, column, row) {
    const { stride } = this.data, p = this.data.pictures[k];
    const at = (i, size) => Math.min(size - 1, i * stride + Math.floor(stride / 2));
    return [at(column, p.size[1]), at(row, p.size[0])];
  }

  /** Put a mark over the cell of a place in the grid. */
  put(mark, k, column, row) {
    const { stride } = this.data, [height, width] = this.data.pictures[k].size;
    mark.style.left = `${(100 * column * stride) / width}%`;
    mark.style.top = `${(100 * row * stride) / height}%`;
    mark.style.width = `${(100 * Math.min(stride, width - column * stride)) / width}%`;
    mark.style.height = `${(100 * Math.min(stride, height - row * stride)) / height}%`;
    mark.classList.add("on");
  }

  prepareView() {
    this.view = byId("view");
    this.enlarged = this.view.appendChild(make("img"));
    this.enlarged.alt = "";
    this.enlarged.draggable = false;
    this.crosshair = ["mark", "across", "down", "mark twin"].map((name) => this.view.appendChild(make("span", name)));
  }

  prepareMaterials() {
    const names = this.data.endmembers ? this.data.endmembers.names : [];
    const colours = this.data.viridis ? this.data.viridis.match(/../g).map((v) => parseInt(v, 16)) : [];
    this.colours = colours;
    this.materials = names.map((name) => {
      const item = byId("materials").appendChild(make("li"));
      const map = item.appendChild(make("canvas"));
      map.setAttribute("aria-hidden", "true");
      const text = item.appendChild(make("span", "name", name));
      const bar = item.appendChild(make("span", "bar")).appendChild(make("i"));
      const value = item.appendChild(make("span", "value"));
      return { map, text, bar, value };
    });
  }

  // ---- choosing

  listen() {
    this.tiles.forEach((tile, k) => {
      tile.addEventListener("click", (event) => this.selectAt(k, event, tile));
      tile.addEventListener("keydown", (event) => this.key(event, k));
    });
    this.view.addEventListener("pointerdown", (event) => this.selectAt(this.picture, event, this.view));
    this.view.addEventListener("pointermove", (event) => {
      if (event.buttons & 1) this.selectAt(this.picture, event, this.view);
    });
    this.view.addEventListener("keydown", (event) => this.key(event, this.picture));
    for (const id of ["even", "fit"]) byId(id).addEventListener("change", () => this.showSpectrum());
    window.addEventListener("hashchange", () => this.fromAddress());
  }

  /** Select what an event points at; a click by keyboard keeps the place. */
  selectAt(k, event, element) {
    const p = this.data.pictures[k], { stride } = this.data;
    const box = element.querySelector("img").getBoundingClientRect();
    if (element !== this.view && event.detail === 0) {
      this.select(k, ...this.kept(k));
      return;
    }
    const along = (at, start, length, size) => Math.floor(((at - start) / length) * size / stride);
    this.select(k, along(event.clientX, box.left, box.width, p.size[1]), along(event.clientY, box.top, box.height, p.size[0]));
  }

  /** The chosen place, carried over to another image in proportion. */
  kept(k) {
    const [from, to] = [this.data.pictures[this.picture].grid, this.data.pictures[k].grid];
    return [Math.floor(((this.column + 0.5) * to[1]) / from[1]), Math.floor(((this.row + 0.5) * to[0]) / from[0])];
  }

  key(event, k) {
    const step = event.shiftKey ? 8 : 1;
    const moves = { ArrowLeft: [-step, 0], ArrowRight: [step, 0], ArrowUp: [0, -step], ArrowDown: [0, step] };
    const turns = { PageUp: -1, PageDown: 1 };
    if (event.key in moves) {
      const [column, row] = k === this.picture ? [this.column, this.row] : this.kept(k);
      this.select(k, column + moves[event.key][0], row + moves[event.key][1]);
    } else if (event.key in turns) {
      const next = this.order[this.order.indexOf(k) + turns[event.key]];
      if (next === undefined) return;
      this.select(next, ...this.kept(next));
      if (event.currentTarget !== this.view) this.tiles[next].focus();
    } else {
      return;
    }
    event.preventDefault();
  }

  /** Choose the pixel at a place in the grid of an image, and say so in the address. */
  select(k, column, row, remember = true) {
    const [rows, columns] = this.data.pictures[k].grid;
    const limit = (value, count) => Math.min(count - 1, Math.max(0, value));
    Object.assign(this, { picture: k, column: limit(column, columns), row: limit(row, rows) });
    this.pixel = this.row * columns + this.column;
    this.real = this.spectra.nearestReal(k, this.pixel);
    this.endmember = this.real ? null : this.spectra.nearestEndmember(k, this.pixel);
    this.showPlace();
    this.showSpectrum();
    this.showMaterials();
    if (!remember) return;
    const [x, y] = this.place(k, this.column, this.row);
    try {
      history.replaceState(null, "", `#pixel=${k},${x},${y}`);
    } catch {
      // some browsers refuse this for files
    }
  }

  fromAddress() {
    const found = /^#pixel=(\d+),(\d+),(\d+)$/.exec(location.hash);
    const k = found ? Number(found[1]) : -1;
    if (!(k in this.data.pictures)) return false;
    const { stride } = this.data;
    this.select(k, Math.floor(Number(found[2]) / stride), Math.floor(Number(found[3]) / stride));
    return true;
  }

  // ---- showing

  showPlace() {
    const p = this.data.pictures[this.picture], [x, y] = this.place(this.picture, this.column, this.row);
    this.tiles.forEach((tile, k) => {
      tile.setAttribute("aria-pressed", k === this.picture);
      this.marks[k].classList.remove("on");
      this.twins[k].classList.remove("on");
    });
    const [cell, across, down, twin] = this.crosshair;
    twin.classList.remove("on");
    this.put(this.marks[this.picture], this.picture, this.column, this.row);
    this.put(cell, this.picture, this.column, this.row);
    across.style.top = `calc(${cell.style.top} + ${cell.style.height} / 2)`;
    down.style.left = `calc(${cell.style.left} + ${cell.style.width} / 2)`;
    if (this.real) this.put(this.twins[this.real.picture], this.real.picture, ...this.twinPlace());
    this.enlarged.src = this.tiles[this.picture].querySelector("img").src;
    this.view.style.aspectRatio = `${p.size[1]} / ${p.size[0]}`;
    this.view.setAttribute("aria-label", `${this.label(this.picture)}, column ${x}, row ${y}`);
    byId("chosen").textContent = this.label(this.picture);
    byId("where").textContent = `column ${x}, row ${y} · ${p.origin}`;
  }

  twinPlace() {
    const columns = this.data.pictures[this.real.picture].grid[1];
    return [this.real.pixel % columns, Math.floor(this.real.pixel / columns)];
  }

  showSpectrum() {
    const own = this.spectra.of(this.picture, this.pixel);
    const lines = [{ values: own, name: "this pixel", class: "own" }];
    let near = null;
    if (this.real) near = this.spectra.of(this.real.picture, this.real.pixel);
    if (this.endmember) near = this.data.endmembers.spectra[this.endmember.material];
    if (near) {
      const length = (values) => Math.hypot(...values);
      const scale = byId("even").checked && length(near) > 0 ? length(own) / length(near) : 1;
      lines.push({ values: Array.from(near, (v) => v * scale), name: "nearest", class: "near", scale });
    }
    const area = this.spectra.envelope(this.data.pictures[this.picture].row);
    const fit = byId("fit").checked;
    const top = Math.max(fit ? 0 : this.data.top, ...lines.map((line) => Math.max(...line.values))) * 1.04;
    const bottom = Math.min(0, ...lines.map((line) => Math.min(...line.values)));
    this.chart.show({ lines, area, range: [bottom, top || 1], label: this.describe(own) });
    this.lines = lines;
    this.showLegend(area);
    byId("said").textContent = `${byId("where").textContent}. ${this.nearText()}`;
  }

  describe(own) {
    const peak = own.indexOf(Math.max(...own)), nm = this.data.wavelengths;
    return `Spectrum of ${this.label(this.picture)}: ${nm.length} bands from ${nm[0].toFixed(0)} to ` +
      `${nm[nm.length - 1].toFixed(0)} nm, highest ${own[peak].toFixed(3)} at ${nm[peak].toFixed(0)} nm. ${this.nearText()}`;
  }

  nearText() {
    if (this.real) return `Nearest real spectrum at ${this.real.angle.toFixed(2)}°, in ${this.label(this.real.picture)}`;
    if (this.endmember) {
      const name = this.data.endmembers.names[this.endmember.material];
      return `Nearest endmember at ${this.endmember.angle.toFixed(2)}°: ${name}`;
    }
    return "There is no other image to compare with";
  }

  showLegend(area) {
    const legend = byId("legend");
    legend.replaceChildren();
    this.readouts = [];
    const add = (className, text) => {
      const item = legend.appendChild(make("li", className));
      item.append(make("i", "swatch"), make("span", "", text));
      return item;
    };
    const values = (item) => this.readouts.push(item.appendChild(make("span", "readout")));
    values(add("own", "this pixel"));
    if (this.lines.length > 1) {
      const item = add("near", "");
      const said = item.querySelector("span");
      said.append(this.real ? "nearest real spectrum, " : "nearest endmember, ");
      said.append(make("b", "angle", `${(this.real || this.endmember).angle.toFixed(2)}°`));
      if (this.real) {
        const [x, y] = this.place(this.real.picture, ...this.twinPlace());
        const jump = said.appendChild(make("button", "jump", `${this.label(this.real.picture)} (${x}, ${y})`));
        jump.type = "button";
        jump.addEventListener("click", () => {
          const [column, row] = this.twinPlace();
          this.select(this.real.picture, column, row);
        });
      } else {
        said.append(`: ${this.data.endmembers.names[this.endmember.material]}`);
      }
      values(item);
    }
    add("area", `10–90 % of ${area.kind} pixels of ${this.data.rows[this.data.pictures[this.picture].row]}`);
    this.showValues(this.chart.band);
  }

  /** Reflectance at the band that is pointed at. */
  showValues(band) {
    (this.readouts || []).forEach((node, i) => {
      node.textContent = band === null ? "" : this.lines[i].values[band].toFixed(4);
    });
  }

  showMaterials() {
    const shares = this.spectra.abundances(this.picture), [rows, columns] = this.data.pictures[this.picture].grid;
    const n = rows * columns;
    this.materials.forEach(({ map, bar, value }, p) => {
      const share = shares[p * n + this.pixel] / 255;
      value.textContent = share.toFixed(2);
      bar.style.width = `${100 * share}%`;
      if (this.mapped === this.picture) return;
      map.width = columns;
      map.height = rows;
      const context = map.getContext("2d"), image = context.createImageData(columns, rows);
      for (let i = 0; i < n; i++) {
        const colour = 3 * shares[p * n + i];
        image.data.set([this.colours[colour], this.colours[colour + 1], this.colours[colour + 2], 255], 4 * i);
      }
      context.putImageData(image, 0, 0);
    });
    this.mapped = this.picture;
  }
}

/** The endmembers, and a list of names that brings one forward. */
function showEndmembers(data) {
  if (!data.endmembers) return;
  const { names, spectra } = data.endmembers;
  const chart = new Chart(byId("materials-chart"), data.wavelengths, data.gaps);
  let chosen = null;
  const zero = spectra.map((values) => !values.some((v) => v > 0));
  const style = (p) => (zero[p] ? "shade" : `series-${p % 8} turn-${Math.floor(p / 8) % 2}`);
  const render = () => {
    const lines = names.map((name, p) => ({ name, values: spectra[p], class: `${style(p)}${chosen !== null && chosen !== p ? " faded" : ""}` }));
    const top = Math.max(...spectra.map((values) => Math.max(...values))) * 1.04;
    if (chosen !== null) lines.push(...lines.splice(chosen, 1));
    chart.show({ lines, range: [0, top || 1], label: `Spectra of ${names.join(", ")}, reflectance up to ${(top / 1.04).toFixed(2)}` });
    keys.forEach((key, p) => key.setAttribute("aria-pressed", chosen === p));
  };
  const keys = names.map((name, p) => {
    const key = byId("materials-legend").appendChild(make("li")).appendChild(make("button", style(p)));
    key.type = "button";
    key.append(make("i", "swatch"), make("span", "", name));
    key.addEventListener("click", () => {
      chosen = chosen === p ? null : p;
      render();
    });
    return key;
  });
  render();
}

async function start() {
  const text = (id) => byId(id).textContent;
  const data = JSON.parse(text("data"));
  showEndmembers(data);
  const parts = await Promise.all([inflate(text("low")), inflate(text("high")), text("shares") ? inflate(text("shares")) : new Uint8Array()]);
  const explorer = new Explorer(data, new Spectra(data, ...parts));
  if (!explorer.fromAddress()) {
    const first = Math.max(0, data.pictures.findIndex((p) => p.kind === "synthetic"));
    const [rows, columns] = data.pictures[first].grid;
    explorer.select(first, Math.floor(columns / 2), Math.floor(rows / 2), false);
  }
  document.documentElement.dataset.ready = "true";
}

start().catch((error) => {
  const note = make("p", "note", `The spectra cannot be shown in this browser: ${error}. Chrome, Edge, Firefox and Safari of 2023 or later can.`);
  note.setAttribute("role", "alert");
  document.querySelector(".explorer").prepend(note);
});
