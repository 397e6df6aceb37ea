"use strict";
// The trace map: a matrix of sentences, the text beside it, and links from the sentence or token that is pointed at.
// Sentences are one element each; they are divided into tokens only when a token of theirs is needed.
globalThis.probeMap ||= (() => {
  const make = (tag, given = {}, ...inside) => {
    const node = Object.assign(document.createElement(tag), given);
    node.append(...inside);
    return node;
  };
  const bytes = (text) => Uint8Array.from(atob(text), (each) => each.charCodeAt(0));
  const size = (level, max) => Math.sign(level) * (level / 32767) ** 2 * max;
  const said = (value) => (value === 0 ? "0" : Math.abs(value) < 0.001 ? value.toExponential(1) : value.toPrecision(3)).replaceAll("-", "−");
  const BLUE = [47, 127, 193], ORANGE = [200, 100, 30], MOST = 6;

  const attach = (root) => {
    if (root.dataset.ready) return;
    root.dataset.ready = "yes";
    const { tokens, spans, sources } = JSON.parse(root.dataset.map), n = spans.length;
    root.removeAttribute("data-map");
    for (const source of sources) {
      source.of = new Int16Array(bytes(source.levels).buffer);
      source.largest = 1;
      // Most heads attend most to where the text begins, which would leave the other cells without colour.
      for (let i = 0; i < n; i++) for (let j = n > 2 ? 1 : 0; j < i; j++) source.largest = Math.max(source.largest, Math.abs(source.of[(i * (i + 1)) / 2 + j]));
      if (source.links) {
        const raw = bytes(source.links.to).buffer;
        source.to = source.links.wide ? new Uint32Array(raw) : new Uint16Array(raw);
        source.strength = new Int16Array(bytes(source.links.levels).buffer);
      }
    }
    let source = sources[0], at = n - 1, token = null, other = null, back = false, pinned = false;
    const level = (i, j) => (j > i ? 0 : source.of[(i * (i + 1)) / 2 + j]);
    const value = (i, j) => size(level(i, j), source.max);

    const choose = make("select", { ariaLabel: "What is shown" }, ...sources.map(({ name }, i) => make("option", { value: i, textContent: name })));
    const turn = make("button", { type: "button", textContent: "What points to it" });
    turn.setAttribute("aria-pressed", "false");
    const csv = make("button", { type: "button", textContent: "Download the matrix (CSV)" });
    const told = make("span", { className: "soft" });
    told.setAttribute("aria-live", "polite");
    // Cells of several pixels show by stripes, too, that a value is less than zero.
    const side = Math.max(1, Math.floor(760 / n)), canvas = make("canvas", { width: n * side, height: n * side, tabIndex: 0 });
    canvas.setAttribute("role", "group");
    canvas.setAttribute("aria-label", "Matrix of sentences: the row points to the column. The arrow keys move through the sentences.");
    const row = make("div", { className: "row" }), cell = make("div", { className: "cell" });
    const square = make("div", { className: "square" }, canvas, row, cell);
    const text = make("div", { className: "text", tabIndex: 0 }), over = make("canvas", { className: "over", width: 14, height: 382 });
    text.setAttribute("role", "group");
    text.setAttribute("aria-label", "The text. Up and down move by sentence, left and right by token, Enter keeps a sentence, Escape lets it go.");
    over.setAttribute("aria-hidden", "true");
    const found = make("div", { className: "found" });
    const hint = make("p", { className: "soft", textContent: "Point at a sentence or token, or use the arrow keys. Click to keep a sentence, Escape to let it go. Orange with stripes or dashes: less than zero. The strongest colour is that of the largest value that does not point to the first sentence." });
    const table = root.querySelector("details");
    table.open = false;
    table.before(make("div", { className: "bar" }, choose, turn, csv, told), make("div", { className: "columns" }, square, make("div", { className: "beside" }, text, over)), found, hint);

    // The text in pieces: the sentences, and what lies between them.
    const pieces = [], owner = new Int32Array(tokens.length).fill(-1);
    let from = 0;
    const piece = (start, end, sentence) => {
      if (end <= start) return;
      owner.fill(pieces.length, start, end);
      const node = make("span", { className: sentence < 0 ? "g" : "s", textContent: tokens.slice(start, end).join("") });
      node.dataset.k = pieces.length;
      pieces.push({ start, end, sentence, node, spans: null });
      text.append(node);
    };
    spans.forEach(([start, end], i) => { piece(from, start, -1); piece(start, end, i); from = end; });
    piece(from, tokens.length, -1);
    const sentences = pieces.filter(({ sentence }) => sentence >= 0);
    const divide = (each) => {
      if (each.spans) return each.spans;
      each.spans = [];
      for (let i = each.start; i < each.end; i++) {
        const span = make("span", { className: "t", textContent: tokens[i] });
        span.dataset.t = i;
        each.spans.push(span);
      }
      each.node.replaceChildren(...each.spans);
      return each.spans;
    };
    const spanOf = (i) => { const each = pieces[owner[i]]; return divide(each)[i - each.start]; };

    const paint = () => {
      const context = canvas.getContext("2d"), wide = n * side, image = context.createImageData(wide, wide), stripe = Math.max(1, Math.round(side / 5));
      for (let i = 0; i < n; i++) for (let j = 0; j <= i; j++) {
        const one = level(i, j), [red, green, blue] = one < 0 ? ORANGE : BLUE, alpha = Math.min(255, (255 * Math.abs(one)) / source.largest);
        for (let y = 0; y < side; y++) {
          if (one < 0 && side > 2 && Math.floor(y / stripe) % 2) continue;
          for (let x = 0; x < side; x++) {
            const o = 4 * ((i * side + y) * wide + j * side + x);
            image.data[o] = red;
            image.data[o + 1] = green;
            image.data[o + 2] = blue;
            image.data[o + 3] = alpha;
          }
        }
      }
      context.putImageData(image, 0, 0);
    };
    let places = null;
    const overview = (values, most) => {
      const whole = text.scrollHeight || 1;
      places ||= sentences.map(({ node }) => [node.offsetTop / whole, Math.max(node.offsetHeight / whole, 0.004)]);
      const context = over.getContext("2d"), height = over.height;
      context.clearRect(0, 0, 14, height);
      values.forEach((each, j) => {
        if (!each && j !== at) return;
        context.globalAlpha = j === at ? 1 : Math.min(1, Math.abs(each) / most);
        context.fillStyle = j === at ? getComputedStyle(root).color : `rgb(${each < 0 ? ORANGE : BLUE})`;
        context.fillRect(j === at ? 0 : 2, places[j][0] * height, j === at ? 14 : each < 0 ? 5 : 10, Math.max(2, places[j][1] * height));
      });
      context.globalAlpha = 1;
    };
    addEventListener("resize", () => { places = null; });

    const listed = (title, entries) => make("div", {}, make("p", { textContent: title }), make("ol", {}, ...entries.map(({ value, label, jump }) => {
      const button = make("button", { type: "button" }, make("span", { className: "value", textContent: value }), make("span", { className: "said", textContent: label }));
      button.addEventListener("click", () => { pinned = true; reveal(jump, true); });
      return make("li", {}, button);
    })));
    const line = (i) => `${i + 1} ${tokens.slice(...spans[i]).join("").trim().replace(/\s+/g, " ").slice(0, 120)}`;
    const reveal = (node, mark) => {
      const box = text.getBoundingClientRect(), own = node.getBoundingClientRect();
      if (own.top < box.top || own.bottom > box.bottom) text.scrollTop += own.top - box.top - box.height / 3;
      for (const each of text.querySelectorAll(".jumped")) each.classList.remove("jumped");
      if (mark) node.closest(".s")?.classList.add("jumped");
    };

    let marked = [];
    const show = () => {
      const values = sentences.map((_, j) => (back ? (j >= at ? level(j, at) : 0) : level(at, j)));
      const away = values.map((each, j) => (j === at ? 0 : Math.abs(each))), most = Math.max(1, ...away.slice(n > 2 ? 1 : 0));
      sentences.forEach(({ node }, j) => {
        node.style.setProperty("--a", j === at ? 0 : Math.min(1, (values[j] / most) ** 2).toFixed(3));
        node.classList.toggle("less", j !== at && values[j] < 0);
        node.classList.toggle("at", j === at);
      });
      overview(values, most);
      const part = 100 / n;
      row.style.cssText = back ? `left:${at * part}%;width:${part}%;top:${at * part}%;height:${(n - at) * part}%` : `top:${at * part}%;height:${part}%;width:${(at + 1) * part}%`;
      cell.hidden = other == null;
      if (other != null) cell.style.cssText = `top:${(back ? other : at) * part}%;left:${(back ? at : other) * part}%;width:${part}%;height:${part}%`;
      const order = away.map((each, j) => [each, j]).filter(([each]) => each).sort((a, b) => b[0] - a[0]).slice(0, MOST);
      const lists = [listed(back ? `What points to sentence ${at + 1}` : `What sentence ${at + 1} points to`, order.map(([, j]) => ({ value: said(back ? value(j, at) : value(at, j)), label: line(j), jump: sentences[j].node })))];
      for (const each of marked) each.classList.remove("on", "to", "less");
      marked = [];
      if (token != null && source.to) {
        const { some } = source.links, entries = [];
        const link = (query, key, shown) => {
          const strength = source.strength[query], span = spanOf(shown);
          if (!strength) return;
          span.classList.add("to");
          span.classList.toggle("less", strength < 0);
          marked.push(span);
          const home = pieces[owner[shown]].sentence;
          entries.push({ size: Math.abs(strength), value: said(size(strength, source.links.max)), label: `${JSON.stringify(tokens[shown])} ${home < 0 ? "outside the sentences" : `in ${home + 1}`}`, jump: span });
        };
        if (!back) for (let k = 0; k < some; k++) link(token * some + k, 0, source.to[token * some + k]);
        else {
          const hits = [];
          for (let o = 0; o < source.to.length; o++) if (source.to[o] === token && source.strength[o]) hits.push(o);
          hits.sort((a, b) => Math.abs(source.strength[b]) - Math.abs(source.strength[a]));
          for (const o of hits.slice(0, MOST)) link(o, 0, Math.floor(o / some));
        }
        const own = spanOf(token);
        own.classList.add("on");
        marked.push(own);
        entries.sort((a, b) => b.size - a.size);
        lists.push(listed(back ? `Tokens with ${JSON.stringify(tokens[token])} among their strongest` : `What ${JSON.stringify(tokens[token])} points to`, entries));
      }
      found.replaceChildren(...lists);
      const pair = other == null ? "" : ` · ${back ? other + 1 : at + 1} → ${back ? at + 1 : other + 1}: ${said(back ? value(other, at) : value(at, other))}`;
      told.textContent = `sentence ${at + 1} of ${n}${pair}${pinned ? " · kept" : ""}`;
    };
    // A pointer moves more often than the screen changes.
    let waiting = false;
    const later = () => { if (!waiting) { waiting = true; requestAnimationFrame(() => { waiting = false; show(); }); } };

    text.addEventListener("pointerover", (event) => {
      const node = event.target.closest("[data-k]");
      if (!node || pinned) return;
      const each = pieces[node.dataset.k];
      divide(each);
      if (each.sentence >= 0) at = each.sentence;
      const span = event.target.closest("[data-t]") || document.elementFromPoint(event.clientX, event.clientY)?.closest("[data-t]");
      token = span ? Number(span.dataset.t) : null;
      other = null;
      later();
    });
    text.addEventListener("click", (event) => {
      const node = event.target.closest(".s");
      if (!node) return;
      const { sentence } = pieces[node.dataset.k], span = event.target.closest("[data-t]");
      const here = span ? Number(span.dataset.t) : null;
      pinned = !(pinned && sentence === at && here === token);
      [at, token, other] = [sentence, here, null];
      show();
    });
    const move = (event) => {
      const { key } = event;
      if (key === "Escape") pinned = false;
      else if (key === "Enter") pinned = !pinned;
      else if (key === "ArrowUp" || key === "ArrowDown") { at = Math.min(n - 1, Math.max(0, at + (key === "ArrowUp" ? -1 : 1))); token = other = null; }
      else if (key === "ArrowLeft" || key === "ArrowRight") {
        const { start, end } = sentences[at], by = key === "ArrowLeft" ? -1 : 1;
        token = token == null ? (by > 0 ? start : end - 1) : Math.min(tokens.length - 1, Math.max(0, token + by));
        const home = pieces[owner[token]].sentence;
        if (home >= 0) at = home;
      } else return;
      event.preventDefault();
      reveal(sentences[at].node, false);
      show();
    };
    text.addEventListener("keydown", move);
    canvas.addEventListener("keydown", move);
    const cellAt = (event) => {
      const box = canvas.getBoundingClientRect(), place = (part) => Math.min(n - 1, Math.max(0, Math.floor(part * n)));
      return [place((event.clientY - box.top) / box.height), place((event.clientX - box.left) / box.width)];
    };
    const pointed = (event) => {
      const [i, j] = cellAt(event);
      [at, other] = back ? [Math.min(i, j), Math.max(i, j)] : [Math.max(i, j), Math.min(i, j)];
      token = null;
      later();
    };
    canvas.addEventListener("pointermove", (event) => { if (!pinned) pointed(event); });
    canvas.addEventListener("click", (event) => { pinned = true; pointed(event); show(); reveal(sentences[at].node, false); reveal(sentences[other].node, true); });
    over.addEventListener("click", (event) => { const box = over.getBoundingClientRect(); text.scrollTop = ((event.clientY - box.top) / box.height) * text.scrollHeight - text.clientHeight / 2; });
    choose.addEventListener("change", () => { source = sources[choose.value]; paint(); show(); });
    turn.addEventListener("click", () => { back = !back; turn.setAttribute("aria-pressed", String(back)); other = null; show(); });
    csv.addEventListener("click", () => {
      const rows = [["sentence", ...spans.map((_, j) => j + 1)].join(","), ...spans.map((_, i) => [i + 1, ...spans.map((__, j) => (j <= i ? value(i, j).toPrecision(4) : ""))].join(","))];
      const link = make("a", { href: URL.createObjectURL(new Blob([rows.join("\n")], { type: "text/csv" })), download: `${source.name.replace(/\W+/g, "-")}.csv` });
      link.click();
      setTimeout(() => URL.revokeObjectURL(link.href), 1000);
    });
    paint();
    show();
  };
  return { attach };
})();
