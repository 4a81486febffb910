"use strict";
(() => {
  const facts = JSON.parse(document.getElementById("facts").textContent);
  const { rows, columns, components: d, width, shifts } = facts;
  const stage = document.getElementById("stage");
  const heat = document.getElementById("heat");
  const marks = document.getElementById("marks");
  const best = document.getElementById("best");
  const place = document.getElementById("place");
  const opacity = document.getElementById("opacity");
  const floor = document.getElementById("floor");
  // dark to light, told apart with any colour vision (matplotlib's magma)
  const ramp = [[0, 0, 4], [59, 15, 112], [140, 41, 129], [222, 73, 104], [254, 159, 109], [252, 253, 191]];
  const LISTED = 10;
  const PARTS = width > columns ? 8 : 1; // of a cell, where rows are shifted
  let chosen = []; // {cell, sign}
  let scores = null;

  // unit vectors; a cell without one stays all zero
  const unit = new Float32Array(rows * columns * d);
  const known = new Uint8Array(rows * columns);
  const bytes = atob(document.getElementById("vectors").textContent);
  for (let cell = 0; cell < rows * columns; cell++) {
    let square = 0;
    for (let k = 0; k < d; k++) {
      const code = (bytes.charCodeAt(cell * d + k) << 24) >> 24;
      const value = code * facts.scale[k];
      unit[cell * d + k] = value;
      square += value * value;
    }
    if (square > 0) {
      known[cell] = 1;
      const length = Math.sqrt(square);
      for (let k = 0; k < d; k++) unit[cell * d + k] /= length;
    }
  }
  heat.width = width * PARTS;
  heat.height = rows;
  marks.setAttribute("viewBox", `0 0 ${width} ${rows}`);
  marks.setAttribute("preserveAspectRatio", "none");

  // middle of a cell, in columns and rows of the picture
  const across = (cell) => (cell % columns) + 0.5 + shifts[Math.floor(cell / columns)];
  const down = (cell) => Math.floor(cell / columns) + 0.5;

  // the cell at a place of the picture; -1 if there is none
  function cellAt(x, row) {
    const column = Math.floor(x - shifts[row]);
    return column >= 0 && column < columns ? row * columns + column : -1;
  }

  // the mean of the places chosen, those not meant taken away
  function direction() {
    const sum = new Float32Array(d);
    for (const sign of [1, -1]) {
      const some = chosen.filter((one) => one.sign === sign);
      for (const one of some) {
        for (let k = 0; k < d; k++) sum[k] += (sign * unit[one.cell * d + k]) / some.length;
      }
    }
    const length = Math.hypot(...sum) || 1;
    return sum.map((value) => value / length);
  }

  function search() {
    const wanted = direction();
    scores = new Float32Array(rows * columns);
    for (let cell = 0; cell < rows * columns; cell++) {
      let product = 0;
      for (let k = 0; k < d; k++) product += unit[cell * d + k] * wanted[k];
      scores[cell] = known[cell] ? product : NaN;
    }
  }

  function draw() {
    const context = heat.getContext("2d");
    context.clearRect(0, 0, heat.width, rows);
    if (!scores) return;
    const sorted = scores.filter((value) => value === value).sort();
    const low = sorted[Math.floor(0.02 * (sorted.length - 1))];
    const high = sorted[sorted.length - 1];
    const image = context.createImageData(heat.width, rows);
    for (let pixel = 0; pixel < heat.width * rows; pixel++) {
      const cell = cellAt((pixel % heat.width + 0.5) / PARTS, Math.floor(pixel / heat.width));
      if (cell < 0 || !known[cell]) continue;
      const share = Math.min(Math.max((scores[cell] - low) / Math.max(high - low, 1e-9), 0), 1);
      if (share < Number(floor.value)) continue;
      const at = share * (ramp.length - 1);
      const first = Math.min(Math.floor(at), ramp.length - 2);
      for (let c = 0; c < 3; c++) {
        image.data[pixel * 4 + c] = ramp[first][c] + (at - first) * (ramp[first + 1][c] - ramp[first][c]);
      }
      image.data[pixel * 4 + 3] = 255 * Number(opacity.value);
    }
    context.putImageData(image, 0, 0);
  }

  function lonlat(cell) {
    const n = facts.lonlat.length - 1;
    const x = (across(cell) / width) * n;
    const y = (down(cell) / rows) * n;
    const i = Math.min(Math.floor(y), n - 1);
    const j = Math.min(Math.floor(x), n - 1);
    const mix = (a, b, t) => a + (b - a) * t;
    return [0, 1].map((axis) => mix(
      mix(facts.lonlat[i][j][axis], facts.lonlat[i][j + 1][axis], x - j),
      mix(facts.lonlat[i + 1][j][axis], facts.lonlat[i + 1][j + 1][axis], x - j), y - i));
  }

  function words(cell) {
    const [longitude, latitude] = lonlat(cell);
    // across the antimeridian they continue beyond 180 degrees
    const within = ((longitude + 540) % 360) - 180;
    return [within, latitude].map((value) => value.toFixed(5)).join(", ");
  }

  function mapped(cell) {
    const [a, b, c, e, f, g] = facts.transform;
    if (!facts.crs) return "";
    const x = across(cell);
    const y = down(cell);
    const digits = Math.hypot(a, e) < 0.1 ? 5 : 1; // degrees, or metres
    return ` (${(a * x + b * y + c).toFixed(digits)}, ${(e * x + f * y + g).toFixed(digits)} in ${facts.crs})`;
  }

  function circle(cell, colour) {
    const mark = document.createElementNS("http://www.w3.org/2000/svg", "ellipse");
    const radius = Math.max(rows, columns) / 90;
    const box = stage.getBoundingClientRect();
    const squeeze = (box.height / rows) / Math.max(box.width / width, 1e-9);
    mark.setAttribute("cx", across(cell));
    mark.setAttribute("cy", down(cell));
    mark.setAttribute("rx", radius);
    mark.setAttribute("ry", radius / (squeeze || 1));
    mark.setAttribute("fill", "none");
    mark.setAttribute("stroke", colour);
    mark.setAttribute("stroke-width", radius / 3);
    return mark;
  }

  function list() {
    best.replaceChildren();
    marks.replaceChildren();
    if (!scores) return;
    const own = new Set(chosen.map((one) => one.cell));
    const order = Array.from(scores.keys()).filter((cell) => known[cell] && !own.has(cell));
    order.sort((a, b) => scores[b] - scores[a] || a - b);
    for (const cell of order.slice(0, LISTED)) {
      const row = document.createElement("tr");
      row.dataset.cell = `${cell % columns},${Math.floor(cell / columns)}`;
      for (const text of [scores[cell].toFixed(3), words(cell)]) {
        const data = document.createElement("td");
        data.textContent = text;
        row.append(data);
      }
      row.firstChild.className = "n";
      row.addEventListener("click", () => choose(cell, 1, false));
      best.append(row);
      marks.append(circle(cell, "#ffffff"));
    }
    for (const one of chosen) marks.append(circle(one.cell, one.sign > 0 ? "#00e5a8" : "#ff5040"));
  }

  function show() {
    const last = chosen[chosen.length - 1];
    if (!chosen.some((one) => one.sign > 0)) {
      scores = null;
      place.textContent = "no place chosen";
      delete document.body.dataset.chosen;
    } else {
      search();
      place.textContent = `${chosen.length > 1 ? `${chosen.length} places, the last ` : ""}${words(last.cell)}${mapped(last.cell)}`;
      document.body.dataset.chosen = chosen
        .map((one) => `${one.sign > 0 ? "" : "-"}${one.cell % columns},${Math.floor(one.cell / columns)}`)
        .join(";");
    }
    draw();
    list();
  }

  function choose(cell, sign, add) {
    if (!known[cell]) {
      place.textContent = "there is no vector at this place";
      return;
    }
    chosen = (add ? chosen.filter((one) => one.cell !== cell) : []).concat([{ cell, sign }]);
    show();
  }

  stage.addEventListener("click", (event) => {
    const box = stage.getBoundingClientRect();
    const row = Math.floor(((event.clientY - box.top) / box.height) * rows);
    if (row < 0 || row >= rows) return;
    const cell = cellAt(((event.clientX - box.left) / box.width) * width, row);
    if (cell >= 0) choose(cell, event.altKey ? -1 : 1, event.shiftKey || event.altKey);
  });
  stage.addEventListener("keydown", (event) => {
    const step = { ArrowLeft: -1, ArrowRight: 1, ArrowUp: -columns, ArrowDown: columns }[event.key];
    const last = chosen[chosen.length - 1];
    if (step === undefined || !last) return;
    event.preventDefault();
    const cell = last.cell + step;
    const wraps = Math.abs(step) === 1 && Math.floor(cell / columns) !== Math.floor(last.cell / columns);
    if (cell >= 0 && cell < rows * columns && !wraps) choose(cell, last.sign, chosen.length > 1);
  });
  for (const control of [opacity, floor]) control.addEventListener("input", draw);
  document.getElementById("clear").addEventListener("click", () => { chosen = []; show(); });

  // #click=COLUMN,ROW chooses a cell, so that a place can be linked to
  function fromAddress() {
    const found = /^#click=(\d+),(\d+)$/.exec(window.location.hash);
    if (!found) return;
    const [column, row] = [Number(found[1]), Number(found[2])];
    if (column < columns && row < rows) choose(row * columns + column, 1, false);
  }
  window.addEventListener("hashchange", fromAddress);
  fromAddress();
})();
