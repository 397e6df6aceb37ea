// Reads traces: finds words in them, and turns the plain text of a trace that is opened into sentences. Without scripts the
// text is there all the same. Text is set by textContent only, so that nothing in a trace is read as HTML. `var`, because a
// notebook runs this once for each output.
var probeReader = (() => {
  const make = (tag, given = {}, ...children) => {
    const { data = {}, style = {}, aria = {}, ...rest } = given;
    const node = Object.assign(document.createElement(tag), rest);
    Object.assign(node.dataset, data);
    for (const [name, value] of Object.entries(style)) node.style.setProperty(name, value);
    for (const [name, value] of Object.entries(aria)) node.setAttribute(`aria-${name}`, value);
    node.append(...children);
    return node;
  };
  const count = (n, noun) => `${n.toLocaleString("en")} ${noun}${n === 1 ? "" : "s"}`;

  // Where a text contains a query, whatever the case, as [start, end).
  const find = (text, query) => {
    const words = query.trim();
    if (!words) return [];
    const escaped = words.replace(/[.*+?^${}()|[\]\\]/g, "\\$&").replace(/\s+/g, "\\s+");
    return [...text.matchAll(new RegExp(escaped, "giu"))].map((found) => [found.index, found.index + found[0].length]);
  };

  // Pieces are { start, end, node } in order, each node with one text. A range may begin in one piece and end in another.
  const range = (pieces, [start, end]) => {
    const holds = (place) => {
      let low = 0, high = pieces.length - 1;
      while (low < high) { const middle = (low + high) >> 1; if (pieces[middle].end <= place) low = middle + 1; else high = middle; }
      return pieces[low];
    };
    const [first, last] = [holds(start), holds(end - 1)];
    // A stretch that is not shown has no text in the page.
    if (!first || !first.node.firstChild || !last.node.firstChild) return null;
    const found = document.createRange();
    found.setStart(first.node.firstChild, Math.max(0, start - first.start));
    found.setEnd(last.node.firstChild, Math.min(end - last.start, last.node.firstChild.length));
    return found;
  };

  // Marks ranges without changing the page; a browser that cannot do so selects the current one.
  const mark = (name, ranges, now) => {
    if (typeof Highlight === "undefined" || !CSS.highlights) {
      if (now) { getSelection().removeAllRanges(); getSelection().addRange(now); }
      return;
    }
    CSS.highlights.set(name, new Highlight(...ranges));
    CSS.highlights.set(`${name}-now`, now ? new Highlight(now) : new Highlight());
  };
  const marked = (name) => `::highlight(${name}) { background-color: #f7d560; color: #000; } ::highlight(${name}-now) { background-color: #ff9a3c; color: #000; }`;

  const reveal = (node) => {
    for (let above = node; above; above = above.parentElement) if (above.tagName === "DETAILS") above.open = true;
    node.scrollIntoView({ block: "center" });
  };

  const fold = (label, ...children) => make("details", {}, make("summary", { textContent: label }), ...children);

  // A box to search in, with buttons for the next and the previous hit.
  const finder = ({ search, step, label }) => {
    const box = make("input", { type: "search", placeholder: label, ariaLabel: label }), told = make("span", { className: "told", role: "status" });
    const [previous, next] = [["↑", -1, "Previous hit"], ["↓", 1, "Next hit"]].map(([textContent, by, title]) => {
      const button = make("button", { type: "button", textContent, title, ariaLabel: title, disabled: true });
      button.addEventListener("click", () => step(by));
      return button;
    });
    let waiting = null;
    const run = () => {
      clearTimeout(waiting);
      waiting = null;
      search(box.value);
    };
    box.addEventListener("input", () => { clearTimeout(waiting); waiting = setTimeout(run, 180); });
    box.addEventListener("keydown", (event) => {
      // Notebooks have shortcuts of one key.
      event.stopPropagation();
      if (event.key !== "Enter") return;
      event.preventDefault();
      if (waiting) run();
      step(event.shiftKey ? -1 : 1);
    });
    const tell = (hits, at) => {
      previous.disabled = next.disabled = !hits;
      told.textContent = !box.value.trim() ? "" : !hits ? "not found" : at == null ? count(hits, "hit") : `${at + 1} of ${hits.toLocaleString("en")}`;
    };
    return { nodes: [box, previous, next, told], tell, box };
  };

  // The sentences of a text as pieces: cut at sentences, where the thinking ends, and around what is folded.
  const cut = (text, { sizes, tokens, behaviours, thinking, loop, gap }, names, colours, notes) => {
    const pieces = [], edges = [thinking, ...(loop || []).slice(0, 2), gap].filter((edge) => edge > 0);
    let at = 0, token = 0;
    sizes.forEach((size, i) => {
      const end = at + size, lead = text.slice(at, end).match(/^\s*/)[0].length;
      const cuts = [...new Set([at, lead < size ? at + lead : at, ...edges.filter((edge) => edge > at && edge < end), end])].sort((a, b) => a - b);
      const said = [`sentence ${i + 1} of ${sizes.length}`];
      if (tokens) said.push(tokens[i] ? `tokens ${token + 1} to ${token + tokens[i]}` : "no token of its own");
      const behaviour = behaviours ? behaviours[i] : null;
      if (behaviour != null) said.push(`${behaviour} ${names[behaviour]}`);
      if (notes && notes[i]) said.push(notes[i]);
      let first = true;
      for (let k = 0; k + 1 < cuts.length; k++) {
        const blank = k === 0 && lead && lead < size;
        const node = make("span", { textContent: text.slice(cuts[k], cuts[k + 1]) });
        if (!blank) {
          node.className = `s${first ? " first" : ""}${!behaviours && i % 2 ? " odd" : ""}`;
          node.title = said.join(" · ");
          if (behaviour != null) { node.dataset.b = behaviour; node.style.setProperty("--c", colours[behaviour % colours.length]); }
          first = false;
        }
        pieces.push({ start: cuts[k], end: cuts[k + 1], sentence: i, node });
      }
      at = end;
      if (tokens) token += tokens[i];
    });
    return pieces;
  };

  const attach = (root) => {
    if (root.dataset.ready) return;
    root.dataset.ready = "yes";
    const name = `${root.id}-${Math.random().toString(36).slice(2, 8)}`, style = make("style");
    const { names, colours } = JSON.parse(root.dataset.known);
    const traces = [...root.querySelectorAll("details.trace")].map((node) => ({ node, hits: [] }));

    // What a trace consists of, read on demand.
    const load = (trace) => (trace.loaded ||= {
      ...JSON.parse(trace.node.dataset.trace),
      ...Object.fromEntries(["text", "prompt"].map((kind) => [kind, [...trace.node.querySelectorAll(`pre.${kind}`)].map((each) => each.textContent).join("")])),
    });

    const build = (trace) => (trace.pieces ||= (() => {
      const data = load(trace), { text, thinking, loop, gap } = data;
      const total = data.sizes.reduce((sum, size) => sum + size, 0);
      // Something on the way changed the text: it stays plain.
      if (total !== text.length) return [];
      const pieces = cut(text, data, names, colours, data.notes && data.notes.map((note) => (note == null ? "" : data.words[note])));
      const body = make("div", { className: "body" }), answer = make("div", { className: "part" });
      let think = null, looped = null, target = null;
      if (data.prompt) body.append(fold(`prompt: ${count(data.prompt.length, "character")}`, make("pre", { textContent: data.prompt })));
      if (thinking) {
        think = make("div", { className: "part" });
        const jump = make("button", { type: "button", textContent: "↓ to the answer" });
        jump.addEventListener("click", () => answer.scrollIntoView({ block: "nearest" }));
        const folded = fold(data.thought, jump, think);
        folded.className = "thinking";
        folded.open = !text.slice(thinking).trim();
        jump.hidden = folded.open;
        body.append(folded);
      }
      body.append(answer);
      for (const piece of pieces) {
        target = thinking && piece.end <= thinking ? think : answer;
        if (loop && piece.start >= loop[0] && piece.end <= loop[1] && loop[0] < loop[1]) {
          if (!looped) {
            looped = make("div", { className: "part" });
            target.append(fold(data.looped, looped));
          }
          target = looped;
        }
        if (gap === piece.start) target.append(make("p", { className: "gap", textContent: data.gone }));
        target.append(piece.node);
      }
      if (data.end) body.append(make("p", { className: "end", textContent: data.end }));
      const old = trace.node.querySelector(":scope > .body");
      if (old) old.replaceWith(body); else trace.node.append(body);
      return pieces;
    })());

    // Searching: traces without a hit are hidden, and the hits of the others counted.
    let query = "", at = null;
    const total = () => traces.reduce((sum, trace) => sum + trace.hits.length, 0);
    const showHits = (now) => mark(name, traces.flatMap((trace) => (trace.pieces ? trace.hits.map((hit) => range(trace.pieces, hit)).filter(Boolean) : [])), now);
    const search = (words) => {
      query = words.trim();
      at = null;
      for (const trace of traces) {
        trace.hits = query ? find(load(trace).text, query) : [];
        const said = trace.node.firstElementChild.textContent.toLowerCase().includes(query.toLowerCase());
        trace.node.hidden = query && !trace.hits.length && !said;
        let told = trace.node.firstElementChild.querySelector(".told");
        if (!told) trace.node.firstElementChild.append(told = make("span", { className: "told" }));
        told.textContent = trace.hits.length ? ` · ${count(trace.hits.length, "hit")}` : "";
      }
      showHits(null);
      bar.tell(total(), at);
    };
    const step = (by) => {
      const hits = total();
      if (!hits) return;
      at = at == null ? (by > 0 ? 0 : hits - 1) : (at + by + hits) % hits;
      let k = at;
      const trace = traces.find((each) => (k < each.hits.length ? true : ((k -= each.hits.length), false)));
      trace.node.open = true;
      const pieces = build(trace), found = pieces.length ? range(pieces, trace.hits[k]) : null;
      if (found) reveal(found.startContainer.parentElement);
      showHits(found);
      bar.tell(hits, at);
    };
    const bar = finder({ search, step, label: traces.length > 1 ? "Search these traces" : "Search this trace" });
    const tools = make("div", { className: "tools" }, ...bar.nodes);
    (root.querySelector(".key") || traces[0]?.node)?.before(tools);

    let alone = null;
    const look = () => {
      style.textContent = marked(name) + (alone == null ? "" : ` [data-ready][data-name="${name}"] .s[data-b]:not([data-b="${alone}"]) { background: none; border-bottom-color: transparent; }`);
      for (const button of root.querySelectorAll(".key button")) button.setAttribute("aria-pressed", button.dataset.b === alone);
    };
    root.dataset.name = name;
    root.append(style);
    for (const button of root.querySelectorAll(".key button")) button.addEventListener("click", () => { alone = alone === button.dataset.b ? null : button.dataset.b; look(); });
    look();

    const open = (number, sentence = null) => {
      const trace = traces[number];
      trace.node.open = true;
      const pieces = build(trace);
      if (sentence == null) return trace.node.scrollIntoView({ block: "nearest" });
      for (const each of root.querySelectorAll(".here")) each.classList.remove("here");
      const mine = pieces.filter((piece) => piece.sentence === sentence && piece.node.className);
      for (const { node } of mine) node.classList.add("here");
      if (mine.length) reveal(mine[0].node);
    };
    traces.forEach((trace, number) => {
      const { node } = trace;
      node.addEventListener("toggle", () => { if (node.open && !trace.pieces) { build(trace); showHits(null); } });
      node.querySelector(".strip")?.addEventListener("click", (event) => {
        const cell = event.target.closest("[data-i]");
        if (!cell) return;
        event.preventDefault();
        open(number, Number(cell.dataset.i));
      });
      if (node.open) build(trace);
    });
    // All traces with the texts of their sentences; one that is left out has none.
    const all = () => traces.map((trace) => {
      const { text, sizes, behaviours } = load(trace), [grade, title] = trace.node.firstElementChild.children;
      let at = 0;
      return { grade: grade.className, title: title.textContent, sentences: sizes.map((size, i) => ({ text: text.slice(at, (at += size)), behaviour: behaviours ? behaviours[i] : null })) };
    });
    root.probe = { open, all };
  };

  return { make, count, find, range, mark, marked, reveal, fold, finder, attach };
})();
