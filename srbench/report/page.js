"use strict";
// Filters of the gallery, and the veil over sensitive pictures. Without it everything is shown, and veils stay.
(() => {
  const all = (selector, within = document) => [...within.querySelectorAll(selector)];
  const tools = document.getElementById("tools");

  function fits(row, board, which, words) {
    return (!board || row.dataset.board === board) && (!which || row.dataset.flags.split(" ").includes(which)) &&
      words.every((word) => row.dataset.text.includes(word));
  }

  function filter() {
    const board = tools.elements.board.value, which = tools.elements.which.value;
    const words = tools.elements.text.value.toLowerCase().split(/\s+/).filter(Boolean);
    const off = new Set(all("input[name=method]", tools).filter((box) => !box.checked).map((box) => box.value));
    for (const shot of all("#gallery [data-method]")) shot.hidden = off.has(shot.dataset.method);
    const rows = all("#gallery .row");
    for (const row of rows) row.hidden = !fits(row, board, which, words);
    for (const group of all("#gallery .group")) group.hidden = !group.querySelector(".row:not([hidden])");
    const shown = rows.filter((row) => !row.hidden).length;
    document.getElementById("count").textContent = shown ? `${shown} of ${rows.length} rows` : `No row fits: 0 of ${rows.length} rows`;
  }

  if (tools) {
    tools.hidden = false;
    tools.addEventListener("input", filter);
    tools.addEventListener("submit", (event) => event.preventDefault());
    tools.addEventListener("reset", () => setTimeout(filter));
    filter();
  }

  // A link to a row that a filter hides shows it again.
  function follow() {
    const row = location.hash && document.getElementById(location.hash.slice(1));
    if (tools && row && row.closest("#gallery") && row.offsetParent === null) {
      tools.reset();
      setTimeout(() => row.scrollIntoView());
    }
  }
  addEventListener("hashchange", follow);

  document.addEventListener("click", (event) => {
    const veil = event.target.closest(".veil");
    if (!veil) return;
    const open = veil.getAttribute("aria-pressed") !== "true";
    veil.setAttribute("aria-pressed", String(open));
    veil.parentElement.classList.toggle("veiled", !open);
    veil.querySelector("span").textContent = open ? "hide" : "sensitive: show";
  });
})();
