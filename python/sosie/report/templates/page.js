"use strict";
document.documentElement.classList.add("js");

document.querySelector(".theme").addEventListener("click", () => {
  const root = document.documentElement;
  const dark = root.dataset.theme
    ? root.dataset.theme === "dark"
    : matchMedia("(prefers-color-scheme: dark)").matches;
  root.dataset.theme = dark ? "light" : "dark";
});

for (const slider of document.querySelectorAll(".slider")) {
  const range = slider.querySelector("input");
  const move = () => slider.style.setProperty("--cut", `${range.value}%`);
  range.addEventListener("input", move);
  move();
}

// Pictures are in the page once; a slider borrows those that are chosen.
for (const choices of document.querySelectorAll(".choices")) {
  const slider = document.getElementById(choices.dataset.slider);
  const show = () => {
    for (const side of ["left", "right"]) {
      const chosen = choices.querySelector(`fieldset[data-side=${side}] input:checked`);
      const image = slider.querySelector(`img.${side}`);
      image.src = document.getElementById(chosen.value).src;
      image.alt = chosen.dataset.label;
      slider.querySelector(side === "left" ? ".label.l" : ".label.r").textContent = chosen.dataset.label;
    }
  };
  choices.addEventListener("change", show);
  show();
}

for (const table of document.querySelectorAll("table.sortable")) {
  const headers = [...table.querySelectorAll("thead th")];
  headers.forEach((header, column) => {
    header.querySelector("button").addEventListener("click", () => {
      const down = header.getAttribute("aria-sort") === "ascending";
      headers.forEach((other) => other.removeAttribute("aria-sort"));
      header.setAttribute("aria-sort", down ? "descending" : "ascending");
      const key = (row) => {
        const cell = row.cells[column];
        return cell.dataset.value === undefined ? cell.textContent.trim() : Number(cell.dataset.value);
      };
      const order = (a, b) => (typeof a === "number" ? a - b : a.localeCompare(b));
      const rows = [...table.tBodies[0].rows].sort((a, b) => order(key(a), key(b)));
      table.tBodies[0].append(...(down ? rows.reverse() : rows));
    });
  });
}
