// Heads as thumbnails, and the attention of the chosen head in the text. Hovering over a token shows what it attends to
// (blue); with Shift held, what attends to it (orange).
function probeAttention(id, data) {
  const root = document.getElementById(id), n = data.tokens.length;
  const raw = atob(data.levels), levels = new Uint8Array(raw.length);
  for (let i = 0; i < raw.length; i++) levels[i] = raw.charCodeAt(i);
  const at = (head, query, key) => levels[(head * n + query) * n + key] / 255;
  root.style.cssText = "font-family:system-ui,sans-serif;font-size:13px;max-width:1000px";
  const heads = document.createElement("div"), text = document.createElement("div"), note = document.createElement("div");
  heads.style.cssText = "display:flex;flex-wrap:wrap;gap:6px;margin-bottom:10px";
  text.style.cssText = "line-height:1.9;white-space:pre-wrap;font-size:15px";
  note.style.cssText = "opacity:.75;margin-top:8px";
  note.textContent = "Hover over a token to see what it attends to, in blue. Hold Shift to see what attends to it, in orange. Click a head to choose it.";
  heads.setAttribute("role", "group");
  heads.setAttribute("aria-label", "Heads");
  text.setAttribute("role", "group");
  text.setAttribute("aria-label", "The text, token by token");
  root.append(heads, text, note);
  let chosen = 0;
  const side = Math.max(56, Math.min(110, n));
  const frames = data.names.map((name, head) => {
    const frame = document.createElement("button"), canvas = document.createElement("canvas"), label = document.createElement("div");
    frame.type = "button";
    frame.style.cssText = "border:2px solid transparent;border-radius:4px;background:none;padding:2px;cursor:pointer;color:inherit;font:inherit";
    frame.setAttribute("aria-label", "head " + name);
    canvas.width = canvas.height = n;
    canvas.style.cssText = "width:" + side + "px;height:" + side + "px;image-rendering:pixelated;border:1px solid rgba(128,128,128,.3)";
    const context = canvas.getContext("2d"), image = context.createImageData(n, n);
    for (let q = 0; q < n; q++) for (let k = 0; k < n; k++) {
      const o = 4 * (q * n + k);
      image.data[o] = 47; image.data[o + 1] = 127; image.data[o + 2] = 193;
      image.data[o + 3] = 255 * Math.sqrt(at(head, q, k));
    }
    context.putImageData(image, 0, 0);
    label.textContent = name;
    frame.append(canvas, label);
    frame.onclick = () => { chosen = head; mark(); };
    heads.append(frame);
    return frame;
  });
  const spans = data.tokens.map((token, i) => {
    const span = document.createElement("span");
    span.textContent = token;
    if (!token) span.style.padding = "0 2px";  // a token that is a part of a character has no text of its own
    span.tabIndex = 0;
    span.style.borderRadius = "3px";
    span.onmouseenter = (event) => show(i, event.shiftKey);
    span.onfocus = () => show(i, false);
    text.append(span);
    return span;
  });
  function show(i, received) {
    const values = spans.map((_, j) => received ? at(chosen, j, i) : at(chosen, i, j));
    const largest = Math.max(...values, 1e-6), colour = received ? "200,100,30" : "47,127,193";
    spans.forEach((span, j) => {
      span.style.background = "rgba(" + colour + "," + (0.7 * values[j] / largest).toFixed(3) + ")";
      span.title = values[j].toFixed(3);
      span.style.outline = j === i ? "2px solid currentColor" : "";
    });
  }
  function mark() {
    frames.forEach((frame, head) => { frame.style.borderColor = head === chosen ? "currentColor" : "transparent"; frame.setAttribute("aria-pressed", head === chosen); });
    show(n - 1, false);
  }
  mark();
}
