"use strict";
// The traces, and the browser of examples.
(() => {
  const { behaviours } = JSON.parse(document.getElementById("data").textContent);
  if (!$("reader")) return;

  const known = (behaviour) => behaviours[behaviour] || { name: "no behaviour", colour: "var(--soft)" };
  const chip = (behaviour) => {
    const node = make("span", { className: "chip line0", textContent: behaviour ?? "–", title: known(behaviour).name });
    node.style.setProperty("--c", known(behaviour).colour);
    return node;
  };

  const words = { right: "✓ correct", wrong: "✗ incorrect" };
  const mark = (grade) => make("span", { className: `badge ${grade}`, textContent: words[grade] || "– not graded" });
  const root = $("reader").firstElementChild;
  probeReader.attach(root);
  const open = (number, at) => root.probe.open(number, at);
  addEventListener("load", () => $("figure-timeline").on("plotly_click", ({ points: [point] }) => open(point.y, point.x - 1)));

  // Every sentence once, by behaviour. Traces take turns, so that the first examples come from different traces.
  const traces = root.probe.all();
  const places = traces.flatMap(({ sentences }, number) => sentences.map(({ behaviour, text }, at) => ({ number, at, behaviour, text })).filter(({ text }) => text));
  const present = [...new Set(places.map((place) => place.behaviour))].filter((each) => each != null).sort((a, b) => a - b);
  $("behaviour").append(...present.map((each) => make("option", { value: each, textContent: `${each} ${known(each).name}` })));
  let chosen = [], shown = 0;

  function pick() {
    const behaviour = Number($("behaviour").value), grade = $("grade").value, seen = new Map();
    chosen = places
      .filter((place) => place.behaviour === behaviour && (!grade || traces[place.number].grade === grade))
      .map((place) => ({ ...place, turn: seen.set(place.number, (seen.get(place.number) || 0) + 1).get(place.number) }))
      .sort((a, b) => a.turn - b.turn || a.number - b.number);
    shown = 0;
    $("excerpts").replaceChildren();
    more();
  }
  function more() {
    $("excerpts").append(...chosen.slice(shown, shown + 8).map(({ number, at, behaviour }) => {
      const { sentences, grade, title } = traces[number];
      const part = (i, name) => (sentences[i] ? [make("p", { className: name }, chip(sentences[i].behaviour), make("span", { textContent: sentences[i].text.trim() }))] : []);
      const button = make("button", { type: "button", className: "plain", textContent: title });
      button.addEventListener("click", () => open(number, at));
      const excerpt = make("div", { className: "excerpt" }, make("p", { className: "head" }, mark(grade), " · ", button, ` · sentence ${at + 1} of ${sentences.length}`), ...part(at - 1, "beside"), ...part(at, "said"), ...part(at + 1, "beside"));
      excerpt.style.setProperty("--c", known(behaviour).colour);
      return excerpt;
    }));
    shown = Math.min(chosen.length, shown + 8);
    $("shown").textContent = chosen.length ? `${shown} of ${chosen.length} in the traces above, each with the sentences before and after it.` : "None in these traces.";
    $("more").hidden = shown >= chosen.length;
  }
  for (const id of ["behaviour", "grade"]) $(id).addEventListener("change", pick);
  $("more").addEventListener("click", more);
  pick();
})();
