"use strict";
// Shared by the scripts of all pages: finding and making elements, and figures that follow the page's colours. Text is set
// by textContent only, so that nothing in a trace is read as HTML.
const $ = (id) => document.getElementById(id);
const { make } = probeReader;

const paint = () => {
  const ink = getComputedStyle(document.documentElement).getPropertyValue("--ink").trim();
  // autosize adapts each figure to the width that it has once the page is loaded.
  for (const figure of document.querySelectorAll(".plotly-graph-div")) Plotly.relayout(figure, { "font.color": ink, autosize: true });
};
matchMedia("(prefers-color-scheme: dark)").addEventListener("change", paint);
addEventListener("load", paint);
