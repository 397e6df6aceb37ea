"use strict";
// What the scripts of both pages share: finding and making elements, and figures that follow the page's colours. Text goes
// in through textContent alone, so that nothing in a trace can be read as HTML.
const $ = (id) => document.getElementById(id);
const make = (tag, given = {}, ...children) => {
  const { data = {}, style = {}, aria = {}, ...rest } = given;
  const node = Object.assign(document.createElement(tag), rest);
  Object.assign(node.dataset, data);
  for (const [name, value] of Object.entries(style)) node.style.setProperty(name, value);
  for (const [name, value] of Object.entries(aria)) node.setAttribute(`aria-${name}`, value);
  node.append(...children);
  return node;
};

const paint = () => {
  const ink = getComputedStyle(document.documentElement).getPropertyValue("--ink").trim();
  // Also takes the size that the page gives a figure now that all of it is there.
  for (const figure of document.querySelectorAll(".plotly-graph-div")) Plotly.relayout(figure, { "font.color": ink, autosize: true });
};
matchMedia("(prefers-color-scheme: dark)").addEventListener("change", paint);
addEventListener("load", paint);
