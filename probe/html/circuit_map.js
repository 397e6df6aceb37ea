"use strict";
// The drawing of a circuit: folds the heads of a block into one node, chooses how many edges are shown, and names them.
globalThis.probeCircuit ||= (() => {
  const make = (tag, given = {}, ...inside) => {
    const node = Object.assign(document.createElement(tag), given);
    node.append(...inside);
    return node;
  };
  // An arc between nodes above one another, to the left where the score is negative, and to the right where not.
  const curve = ([x0, y0], [x1, y1], side) => {
    const reach = Math.max(14, 0.4 * (y0 - y1)), bow = Math.abs(x0 - x1) < 8 ? side * Math.min(150, 10 + 0.3 * (y0 - y1)) : 0;
    return `M${x0} ${y0}C${x0 + bow} ${y0 - reach} ${x1 + bow} ${y1 + reach} ${x1} ${y1}`;
  };

  const attach = (root) => {
    if (root.dataset.ready) return;
    root.dataset.ready = "yes";
    const svg = root.querySelector("svg"), { places, first } = JSON.parse(svg.dataset.known);
    const paths = [...svg.querySelectorAll("path")], nodes = [...svg.querySelectorAll(".node")];
    const total = Math.max(0, ...paths.map((path) => Number(path.dataset.e) + 1));
    const blockOf = (name) => name.split(".")[0];
    const folds = nodes.filter((node) => node.classList.contains("fold"));
    const folded = new Set(folds.filter((node) => !node.classList.contains("hidden")).map((node) => node.dataset.n));
    const shownAs = (name) => (folded.has(blockOf(name)) ? blockOf(name) : name);

    const slider = make("input", { type: "range", min: 1, max: total, value: Math.min(first, total) });
    const count = make("span"), whole = make("button", { type: "button" });
    const named = make("div", { className: "named" });
    named.setAttribute("aria-live", "polite");
    const bar = make("div", { className: "bar" }, make("label", {}, slider, count));
    if (folds.length) bar.append(whole);
    svg.setAttribute("role", "group");  // what is inside an image cannot be reached by a screen reader
    const canvas = root.querySelector(".canvas");
    canvas.before(bar);
    canvas.after(named);

    const drawn = () => paths.filter((path) => !path.classList.contains("hidden"));
    const show = () => {
      count.textContent = `${slider.value} strongest of ${total} edges`;
      svg.setAttribute("aria-label", `${slider.value} strongest edges of a circuit, as the table below lists them`);
      whole.textContent = folded.size ? "Unfold all blocks" : "Fold all blocks";
      const used = new Set(["embed", "logits"]);
      for (const path of paths) {
        const { e, from, to } = path.dataset, hidden = Number(e) >= slider.value;
        path.classList.toggle("hidden", hidden);
        if (hidden) continue;
        path.setAttribute("d", curve(places[shownAs(from)], places[shownAs(to)], path.classList.contains("less") ? -1 : 1));
        used.add(from).add(to);
      }
      for (const node of nodes) {
        const name = node.dataset.n, heads = node.classList.contains("fold") ? [...used].filter((each) => each.startsWith(`${name}.`)) : null;
        node.classList.toggle("hidden", heads ? !folded.has(name) || !heads.length : shownAs(name) !== name || !used.has(name));
        if (heads) node.querySelector("text").textContent = `${heads.length} ${heads.length === 1 ? "head" : "heads"}`;
      }
      name([], "");
    };
    const name = (some, title) => {
      svg.classList.toggle("some", some.length > 0);
      for (const path of paths) path.classList.toggle("on", some.includes(path));
      const said = [...new Map(some.map((path) => [path.dataset.e, path.querySelector("title").textContent]))].sort((a, b) => a[0] - b[0]).map(([, each]) => each);
      named.textContent = some.length ? `${title}\n${said.join("\n")}` : "Point at a node or a line to name its edges. Click a head to fold or unfold its block.";
    };
    const ends = ({ dataset: { from, to } }) => [shownAs(from), shownAs(to)];
    const ofNode = (node) => name(drawn().filter((path) => ends(path).includes(node.dataset.n)), `${node.dataset.n}: edges`);
    const fold = (node) => {
      const block = blockOf(node.dataset.n);
      if (!folds.some((each) => each.dataset.n === block)) return;
      if (folded.has(block)) folded.delete(block); else folded.add(block);
      show();
      const next = nodes.find((each) => blockOf(each.dataset.n) === block && !each.classList.contains("hidden"));
      if (next && document.activeElement?.closest?.(".probe-circuit") === root) next.focus();
    };
    for (const path of paths) {
      path.addEventListener("pointerenter", () => {
        const [from, to] = ends(path);
        name(drawn().filter((other) => ends(other)[0] === from && ends(other)[1] === to), `${from} to ${to}`);
      });
      path.addEventListener("pointerleave", () => name([], ""));
    }
    for (const node of nodes) {
      const folds_ = folds.some((each) => each.dataset.n === blockOf(node.dataset.n));
      node.classList.toggle("folds", folds_);
      node.setAttribute("tabindex", "0");
      node.setAttribute("role", "button");
      node.setAttribute("aria-label", folds_ ? `${node.dataset.n}, folds or unfolds its block` : node.dataset.n);
      node.addEventListener("pointerenter", () => ofNode(node));
      node.addEventListener("pointerleave", () => name([], ""));
      node.addEventListener("focus", () => ofNode(node));
      node.addEventListener("click", () => fold(node));
      node.addEventListener("keydown", (event) => {
        if (event.key !== "Enter" && event.key !== " ") return;
        event.preventDefault();
        fold(node);
      });
    }
    for (const row of root.querySelectorAll("tr[data-e]")) {
      row.addEventListener("pointerenter", () => name(drawn().filter((path) => path.dataset.e === row.dataset.e), ""));
      row.addEventListener("pointerleave", () => name([], ""));
    }
    slider.addEventListener("input", show);
    whole.addEventListener("click", () => {
      if (folded.size) folded.clear(); else for (const node of folds) folded.add(node.dataset.n);
      show();
    });
    show();
  };
  return { attach };
})();
