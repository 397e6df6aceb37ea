"use strict";
// The reader of traces.
(() => {
  const { problems, labels, meaning } = JSON.parse(document.getElementById("data").textContent);
  if (!problems.length) return;

  // An unsteered token on which both models agree is its text alone; any other is [text, steered, behaviour, strength, base, thinking].
  // A number stands for that many tokens that were left out.
  const read = (token, asked) => {
    if (typeof token === "number") return { text: leftOut(token, "token"), gap: token };
    if (typeof token === "string") return { text: token, steered: false, base: token, thinking: asked ? token : null };
    const [text, steered, behaviour, strength, base, thinking] = token;
    return { text, steered: !!steered, behaviour, strength, base, thinking };
  };
  const leftOut = (n, noun) => `[… ${probeReader.count(n, noun)} left out …]`;
  const repeated = (gap, [size, times], noun) => `[… the last ${probeReader.count(size, noun)} ${times.toLocaleString("en")} times in all, ${gap.toLocaleString("en")} left out …]`;
  const strengths = problems.flatMap((p) => p.arms.flatMap((a) => (a.tokens || []).map((t) => (Array.isArray(t) ? Math.abs(t[3] || 0) : 0))));
  // The deepest colour is the 95th percentile, so that one outlier does not make all others pale.
  const steered = strengths.filter((s) => s > 0).sort((a, b) => a - b);
  const strongest = steered[Math.floor(0.95 * (steered.length - 1))] || 1;
  const depth = (strength) => (strength == null ? 0.6 : Math.min(1, 0.25 + (0.75 * Math.abs(strength)) / strongest));
  const look = (behaviour) => (behaviour == null ? "" : `b${behaviour % 8} line${Math.floor(behaviour / 8) % 3}`);
  const chip = (behaviour) => make("span", { className: `chip ${look(behaviour)}`, textContent: behaviour });
  // An answer that could not be graded is neither correct nor wrong.
  const verdict = (correct) => (correct == null ? "Not graded" : correct ? "Correct" : "Wrong");
  const mark = (correct) => make("span", { className: `badge ${correct == null ? "" : correct ? "right" : "wrong"}`, textContent: correct == null ? "–" : correct ? "✓" : "✗", ariaLabel: verdict(correct).toLowerCase() });
  const visible = (text) => (text == null ? "–" : text.replace(/ /g, "␣").replace(/\n/g, "⏎") || "(empty)");

  // Problems are grouped by what steering changed, so that failures are as visible as successes.
  const outcome = ({ arms }) => {
    const [base, hybrid] = ["base", "hybrid"].map((name) => arms.find((arm) => arm.name === name));
    if (!base || !hybrid) return "All problems";
    if (base.correct == null || hybrid.correct == null) return "Not graded";
    if (hybrid.correct) return base.correct ? "Base correct, hybrid correct" : "Base wrong, hybrid correct";
    return base.correct ? "Base correct, hybrid wrong" : "Base wrong, hybrid wrong";
  };
  const order = [];
  for (const name of ["Base wrong, hybrid correct", "Base wrong, hybrid wrong", "Base correct, hybrid wrong", "Base correct, hybrid correct", "Not graded", "All problems"]) {
    const members = problems.map((problem, i) => i).filter((i) => outcome(problems[i]) === name);
    if (!members.length) continue;
    const group = make("optgroup", { label: `${name} (${members.length})` });
    for (const i of members) group.append(make("option", { value: i, textContent: problems[i].id || `problem ${i + 1}` }));
    $("problem").append(group);
    order.push(...members);
  }

  let chosen = "hybrid", tokens = [], spans = [], numbers = [], here = -1, pieces = [], hits = [], hit = null;

  // Search in the trace that is shown.
  const showHits = (now) => probeReader.mark("hits", hits.map((each) => probeReader.range(pieces, each)).filter(Boolean), now);
  const bar = probeReader.finder({
    label: "Search this trace",
    search: (words) => {
      hits = probeReader.find(pieces.map(({ node }) => node.textContent).join(""), words);
      hit = null;
      showHits(null);
      bar.tell(hits.length, hit);
    },
    step: (by) => {
      if (!hits.length) return;
      hit = hit == null ? (by > 0 ? 0 : hits.length - 1) : (hit + by + hits.length) % hits.length;
      const found = probeReader.range(pieces, hits[hit]);
      probeReader.reveal(found.startContainer.parentElement);
      showHits(found);
      bar.tell(hits.length, hit);
    },
  });
  const jump = make("button", { type: "button", textContent: "↓ to the answer" });
  jump.addEventListener("click", () => $("trace").lastElementChild.scrollIntoView({ block: "center" }));
  $("find").append(...bar.nodes, jump);
  document.head.append(make("style", { textContent: probeReader.marked("hits") }));

  function showProblem() {
    const problem = problems[order[$("problem").selectedIndex]];
    $("question").replaceChildren(problem.question, " ", make("b", { textContent: `Answer: ${problem.answer}` }));
    const fits = problem.arms.find((arm) => arm.name === chosen) || problem.arms[0];
    $("switch").replaceChildren($("switch").firstElementChild, ...problem.arms.map((arm) => {
      const radio = make("input", { type: "radio", name: "arm", value: arm.name, checked: arm === fits });
      radio.addEventListener("change", () => { chosen = arm.name; showArm(arm); });
      return make("label", { title: meaning[arm.name] || "" }, radio, mark(arm.correct), ` ${arm.name}`);
    }));
    if (fits) showArm(fits);
  }

  function showArm(arm) {
    hide();
    tokens = arm.tokens ? arm.tokens.map((token) => read(token, arm.asked)) : [];
    spans = tokens.map((token, i) => {
      if (token.gap) return make("span", { className: "gap", textContent: token.text });
      const span = make("span", { tabIndex: -1, data: { i }, textContent: token.text });
      if (token.steered) {
        span.className = `s ${look(token.behaviour)}`;
        span.dataset.b = token.behaviour ?? "";
        span.style.setProperty("--s", depth(token.strength).toFixed(2));
      }
      return span;
    });
    $("trace").className = "";
    numbers = [];
    tokens.reduce((before, token, i) => { numbers[i] = before + 1; return before + (token.gap || 1); }, 0);
    const gaps = tokens.flatMap((token, i) => (token.gap ? [i] : [])), last = gaps[gaps.length - 1];
    if (arm.loop && gaps.length) spans[last].textContent = repeated(tokens[last].gap, arm.loop, "token");
    const parts = spans.length ? spans.map((node, i) => ({ node, thinking: numbers[i] <= (arm.thinking || 0), gap: tokens[i].gap })) : ofText(arm);
    let at = 0;
    pieces = parts.filter((part) => !part.gap).map(({ node }) => ({ node, start: at, end: (at += node.textContent.length) })).filter((piece) => piece.start < piece.end);
    const [thought, answered] = [true, false].map((thinking) => parts.filter((part) => part.thinking === thinking).map((part) => part.node));
    const thinking = probeReader.fold(`thinking: ${probeReader.count(arm.thinking || 0, spans.length ? "token" : "character")}`, ...thought);
    // The thinking is open if the arm has steered tokens or the thinking is short; otherwise it is folded.
    thinking.open = (arm.steered > 0 || thought.length + thought.reduce((sum, node) => sum + node.textContent.length, 0) < 2000);
    const end = arm.truncated ? [make("p", { className: "gap", textContent: "The limit on new tokens stopped the answer here." })] : [];
    $("trace").replaceChildren(...(thought.length ? [thinking] : []), make("div", {}, ...(parts.length ? answered : ["(no text)"])), ...end);
    jump.hidden = !thought.length && parts.length < 400;
    bar.box.dispatchEvent(new Event("input"));
    // One stop of the Tab key for the whole trace; arrows move within it.
    const length = tokens.reduce((sum, token) => sum + (token.gap || 1), 0), gone = tokens.reduce((sum, token) => sum + (token.gap || 0), 0);
    here = Math.max(0, tokens.findIndex((token) => token.steered));
    if (spans.length) spans[here].tabIndex = 0;

    const counts = new Map();
    for (const token of tokens) if (token.steered && token.behaviour != null) counts.set(token.behaviour, (counts.get(token.behaviour) || 0) + 1);
    // The share refers to the whole trace, not to the shown part.
    const total = arm.steered || 0;
    const share = tokens.length ? `${total} of ${length} tokens steered${gone ? `, ${length - gone} tokens shown` : ""}` : "no token steered";
    const answer = !("answer" in arm) ? "" : arm.answer == null ? "no answer · " : `answer ${arm.answer} · `;
    const more = `${arm.loop ? " · loops" : ""}${arm.truncated ? " · truncated" : ""}${arm.samples > 1 ? ` · the first of ${arm.samples} samples` : ""}`;
    const blind = tokens.length && !arm.asked ? ", thinking model not used" : "";
    $("about").replaceChildren(mark(arm.correct), ` ${verdict(arm.correct)} · ${answer}${share}${blind}${more}${meaning[arm.name] ? ` · ${meaning[arm.name]}` : ""}`);
    $("legend").replaceChildren(...[...counts].sort((a, b) => a[0] - b[0]).map(([behaviour, count]) => {
      const button = make("button", { type: "button", aria: { pressed: false } }, chip(behaviour), `${labels[behaviour] || `behaviour ${behaviour}`} ×${count}${gone ? " shown" : ""}`);
      button.addEventListener("click", () => alone(button, behaviour));
      return button;
    }));
  }

  // A text without recorded tokens, divided where the thinking ends and where something was left out. Lengths count
  // characters, as in Python.
  function ofText({ text, left_out: gone, end, loop, thinking = 0 }) {
    const parts = [];
    const add = (part, from) => {
      const characters = [...part], split = Math.max(0, Math.min(characters.length, thinking - from));
      for (const [some, inside] of [[characters.slice(0, split), true], [characters.slice(split), false]]) {
        if (some.length) parts.push({ node: make("span", { className: "plain", textContent: some.join("") }), thinking: inside });
      }
      return from + characters.length;
    };
    const at = add(text || "", 0);
    if (gone) {
      const told = loop ? repeated(gone, loop, "character") : leftOut(gone, "character");
      parts.push({ node: make("span", { className: "gap", textContent: told }), thinking: at < thinking, gap: gone });
      add(end, at + gone);
    }
    return parts;
  }

  function alone(button, behaviour) {
    const on = button.getAttribute("aria-pressed") !== "true";
    for (const each of $("legend").children) each.setAttribute("aria-pressed", on && each === button);
    $("trace").classList.toggle("alone", on);
    spans.forEach((span, i) => span.classList.toggle("on", !!tokens[i].steered && tokens[i].behaviour === behaviour));
  }

  function tell(i) {
    const token = tokens[i], tip = $("tip");
    const said = (who, text) => [make("dt", { textContent: `${who} would emit` }),
      make("dd", {}, make("code", { textContent: visible(text) }), text === token.text ? " ← emitted" : "")];
    const how = token.steered
      ? make("p", { className: "how" }, ...(token.behaviour == null ? [] : [chip(token.behaviour)]),
          make("span", {}, make("b", { textContent: token.behaviour == null ? "steered" : labels[token.behaviour] || `behaviour ${token.behaviour}` }),
            token.strength == null ? "" : `, strength ${token.strength.toFixed(2)}`))
      : make("p", { textContent: "not steered" });
    tip.replaceChildren(make("p", { className: "head" }, `token ${numbers[i]} of ${numbers[tokens.length - 1] + (tokens[tokens.length - 1].gap || 1) - 1}  `, make("code", { textContent: visible(token.text) })), how,
      make("dl", {}, ...(token.base == null ? [] : said("base", token.base)), ...(token.thinking == null ? [] : said("thinking", token.thinking))));
    tip.hidden = false;
    // Below the token and inside the stage; for a token on two lines, below its end.
    const stage = tip.parentElement.getBoundingClientRect(), boxes = spans[i].getClientRects(), box = boxes[boxes.length - 1];
    if (!box) return;
    tip.style.left = `${Math.max(0, Math.min(box.left - stage.left, stage.width - tip.offsetWidth))}px`;
    const below = box.bottom - stage.top + 8, above = box.top - stage.top - tip.offsetHeight - 8;
    tip.style.top = `${box.bottom + tip.offsetHeight + 12 > innerHeight && box.top > tip.offsetHeight + 60 ? above : below}px`;
    spans[i].setAttribute("aria-describedby", "tip");
  }
  function hide() { $("tip").hidden = true; }
  const index = (event) => (event.target.dataset && event.target.dataset.i !== undefined ? Number(event.target.dataset.i) : -1);

  const trace = $("trace");
  trace.addEventListener("mouseover", (event) => { if (index(event) >= 0) tell(index(event)); });
  trace.addEventListener("mouseleave", () => { if (trace.contains(document.activeElement)) tell(here); else hide(); });
  trace.addEventListener("focusin", (event) => {
    if (index(event) < 0) return;
    if (spans[here]) spans[here].tabIndex = -1;
    here = index(event);
    spans[here].tabIndex = 0;
    tell(here);
  });
  trace.addEventListener("focusout", hide);
  trace.addEventListener("keydown", (event) => {
    if (event.key === "Escape") return hide();
    const [way, only] = { ArrowRight: [1, false], ArrowLeft: [-1, false], ArrowDown: [1, true], ArrowUp: [-1, true] }[event.key] || [];
    if (!way) return;
    event.preventDefault();
    let to = here + way;
    while (to >= 0 && to < tokens.length && (tokens[to].gap || (only && !tokens[to].steered))) to += way;
    if (!spans[to]) return;
    if (spans[to].closest("details")) spans[to].closest("details").open = true;
    spans[to].focus();
  });

  const turn = (by) => {
    const select = $("problem");
    select.selectedIndex = (select.selectedIndex + by + order.length) % order.length;
    showProblem();
  };
  $("problem").addEventListener("change", showProblem);
  $("previous").addEventListener("click", () => turn(-1));
  $("next").addEventListener("click", () => turn(1));
  showProblem();
})();
