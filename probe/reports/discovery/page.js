"use strict";
// The reader of traces and the browser of examples.
(() => {
  const { traces, behaviours } = JSON.parse(document.getElementById("data").textContent);
  if (!$("reader")) return;

  const known = (behaviour) => behaviours[behaviour] || { name: "no behaviour", colour: "var(--soft)" };
  const chip = (behaviour) => {
    const node = make("span", { className: "chip line0", textContent: behaviour ?? "–", title: known(behaviour).name });
    node.style.setProperty("--c", known(behaviour).colour);
    return node;
  };
  const words = (correct) => (correct == null ? "not graded" : correct ? "correct" : "incorrect");
  const sign = (correct) => (correct == null ? "–" : correct ? "✓" : "✗");
  const mark = (correct) => make("span", { className: `badge ${correct == null ? "" : correct ? "right" : "wrong"}`, textContent: `${sign(correct)} ${words(correct)}` });

  const which = $("which"), list = $("sentences");
  which.append(...traces.map((trace, i) => make("option", { value: i, textContent: `${sign(trace.correct)} ${trace.problem_id || `trace ${i + 1}`} · ${trace.sentences.length} sentences` })));

  function show(number, at = null) {
    which.selectedIndex = number;
    list.replaceChildren(...traces[number].sentences.map(({ text, behaviour, type }, i) => {
      const row = make("li", { className: i === at ? "here" : "" }, chip(behaviour), make("span", { className: "said", textContent: text.trim() }));
      row.style.setProperty("--c", known(behaviour).colour);
      if (type) row.append(make("small", { textContent: type, title: "true type" }));
      return row;
    }));
    // Only the list scrolls; the page stays where it is.
    const row = list.children[at ?? 0];
    list.scrollTop = row ? row.offsetTop - list.offsetTop - list.clientHeight / 3 : 0;
  }
  const turn = (by) => show((which.selectedIndex + by + traces.length) % traces.length);
  which.addEventListener("change", () => show(which.selectedIndex));
  $("previous").addEventListener("click", () => turn(-1));
  $("next").addEventListener("click", () => turn(1));
  show(0);

  const open = (number, at) => {
    show(number, at);
    $("reader").scrollIntoView({ block: "nearest" });
  };
  addEventListener("load", () => $("figure-timeline").on("plotly_click", ({ points: [point] }) => open(point.y, point.x - 1)));

  // Every sentence once, by behaviour. Traces take turns, so that the first examples come from different traces.
  const places = traces.flatMap((trace, number) => trace.sentences.map(({ behaviour }, at) => ({ number, at, behaviour })));
  const present = [...new Set(places.map((place) => place.behaviour))].filter((each) => each != null).sort((a, b) => a - b);
  $("behaviour").append(...present.map((each) => make("option", { value: each, textContent: `${each} ${known(each).name}` })));
  let chosen = [], shown = 0;

  function pick() {
    const behaviour = Number($("behaviour").value), grade = $("grade").value, seen = new Map();
    chosen = places
      .filter((place) => place.behaviour === behaviour && (!grade || String(traces[place.number].correct) === grade))
      .map((place) => ({ ...place, turn: seen.set(place.number, (seen.get(place.number) || 0) + 1).get(place.number) }))
      .sort((a, b) => a.turn - b.turn || a.number - b.number);
    shown = 0;
    $("excerpts").replaceChildren();
    more();
  }
  function more() {
    $("excerpts").append(...chosen.slice(shown, shown + 8).map(({ number, at, behaviour }) => {
      const { sentences, correct, problem_id } = traces[number];
      const part = (i, name) => (sentences[i] ? [make("p", { className: name }, chip(sentences[i].behaviour), make("span", { textContent: sentences[i].text.trim() }))] : []);
      const button = make("button", { type: "button", className: "plain", textContent: problem_id || `trace ${number + 1}` });
      button.addEventListener("click", () => open(number, at));
      const excerpt = make("div", { className: "excerpt" }, make("p", { className: "head" }, mark(correct), " · ", button, ` · sentence ${at + 1} of ${sentences.length}`), ...part(at - 1, "beside"), ...part(at, "said"), ...part(at + 1, "beside"));
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
