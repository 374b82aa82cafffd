"use strict";

// The spectra and abundances of the page, unpacked, and the nearest of them by spectral angle.

/** Bytes of a base64 text that was deflated with zlib. */
async function inflate(text) {
  const packed = Uint8Array.from(atob(text), (c) => c.charCodeAt(0));
  const stream = new Blob([packed]).stream().pipeThrough(new DecompressionStream("deflate"));
  return new Uint8Array(await new Response(stream).arrayBuffer());
}

/** Angle in degrees between unit vectors u (from i) and v (from j), exact at small angles; a zero vector is 90 from others. */
function angleBetween(u, i, v, j, bands) {
  let difference = 0, sum = 0, lengths = 0;
  for (let c = 0; c < bands; c++) {
    const a = u[i + c], b = v[j + c];
    difference += (a - b) * (a - b);
    sum += (a + b) * (a + b);
    lengths += a * a - b * b;
  }
  if (Math.abs(lengths) > 0.5) return 90;
  return difference === 0 ? 0 : (360 / Math.PI) * Math.atan2(Math.sqrt(difference), Math.sqrt(sum));
}

/** Vectors of length one, `bands` values each; zero stays zero. */
function unitVectors(values, bands) {
  const units = new Float32Array(values.length);
  for (let i = 0; i < values.length; i += bands) {
    let square = 0;
    for (let c = 0; c < bands; c++) square += values[i + c] ** 2;
    const scale = square > 0 ? 1 / Math.sqrt(square) : 0;
    for (let c = 0; c < bands; c++) units[i + c] = values[i + c] * scale;
  }
  return units;
}

class Spectra {
  /** @param data the page's JSON. @param low, high, shares unpacked bytes. */
  constructor(data, low, high, shares) {
    this.pictures = data.pictures;
    this.bands = data.wavelengths.length;
    this.materials = data.endmembers ? data.endmembers.names.length : 0;
    this.endmembers = data.endmembers ? data.endmembers.spectra : [];
    this.first = [];
    let pixels = 0;
    for (const p of this.pictures) {
      this.first.push(pixels);
      pixels += p.grid[0] * p.grid[1];
    }
    this.values = new Float32Array(pixels * this.bands);
    this.shares = shares;
    this.unpack(low, high, data.step);
    this.units = unitVectors(this.values, this.bands);
    this.envelopes = new Map();
  }

  /** Differences from band to band, signs folded in, become reflectance, one pixel after the other. */
  unpack(low, high, step) {
    let at = 0;
    this.pictures.forEach((p, k) => {
      const n = p.grid[0] * p.grid[1];
      const sums = new Int32Array(n);
      for (let c = 0; c < this.bands; c++) {
        for (let i = 0; i < n; i++, at++) {
          const folded = low[at] | (high[at] << 8);
          sums[i] += (folded >>> 1) ^ -(folded & 1);
          this.values[(this.first[k] + i) * this.bands + c] = sums[i] * step;
        }
      }
    });
  }

  /** The spectrum of a pixel of the grid of a picture. */
  of(picture, pixel) {
    const start = (this.first[picture] + pixel) * this.bands;
    return this.values.subarray(start, start + this.bands);
  }

  /** The shares of the materials in the whole picture: material after material, or none. */
  abundances(picture) {
    const n = this.pictures[picture].grid[0] * this.pictures[picture].grid[1];
    const start = this.first[picture] * this.materials;
    return this.shares.subarray(start, start + n * this.materials);
  }

  /** The pixel of another real picture at the smallest angle: {picture, pixel, angle}; null if there is none. */
  nearestReal(picture, pixel) {
    const own = (this.first[picture] + pixel) * this.bands;
    let best = null, largest = -Infinity;
    this.pictures.forEach((p, k) => {
      if (p.kind !== "real" || k === picture) return;
      for (let i = 0; i < p.grid[0] * p.grid[1]; i++) {
        const start = (this.first[k] + i) * this.bands;
        let cosine = 0;
        for (let c = 0; c < this.bands; c++) cosine += this.units[own + c] * this.units[start + c];
        if (cosine > largest) {
          largest = cosine;
          best = { picture: k, pixel: i };
        }
      }
    });
    if (!best) return null;
    const start = (this.first[best.picture] + best.pixel) * this.bands;
    return { ...best, angle: angleBetween(this.units, own, this.units, start, this.bands) };
  }

  /** The endmember at the smallest angle, shade (zero) aside: {material, angle}; null if there is none. */
  nearestEndmember(picture, pixel) {
    const own = (this.first[picture] + pixel) * this.bands;
    let best = null;
    this.endmembers.forEach((spectrum, material) => {
      if (!spectrum.some((v) => v > 0)) return;
      const unit = unitVectors(Float32Array.from(spectrum), this.bands);
      const angle = angleBetween(this.units, own, unit, 0, this.bands);
      if (!best || angle < best.angle) best = { material, angle };
    });
    return best;
  }

  /** Per band, the 10 % and 90 % quantile of all pixels of a class, of its real pictures if it has some. */
  envelope(row) {
    if (!this.envelopes.has(row)) {
      const mine = this.pictures.map((p, k) => k).filter((k) => this.pictures[k].row === row);
      const real = mine.filter((k) => this.pictures[k].kind === "real");
      const chosen = real.length ? real : mine;
      const low = [], high = [];
      for (let c = 0; c < this.bands; c++) {
        const found = [];
        for (const k of chosen) {
          const n = this.pictures[k].grid[0] * this.pictures[k].grid[1];
          for (let i = 0; i < n; i++) found.push(this.values[(this.first[k] + i) * this.bands + c]);
        }
        found.sort((a, b) => a - b);
        low.push(found[Math.floor(0.1 * (found.length - 1))]);
        high.push(found[Math.ceil(0.9 * (found.length - 1))]);
      }
      this.envelopes.set(row, { low, high, kind: real.length ? "real" : "synthetic" });
    }
    return this.envelopes.get(row);
  }
}
