"use strict";
const { classes, pictures } = JSON.parse(document.getElementById("pictures").textContent);
const chosen = document.getElementById("chosen");

function tile(picture) {
  const figure = document.createElement("figure");
  const image = figure.appendChild(document.createElement("img"));
  const caption = figure.appendChild(document.createElement("figcaption"));
  const answer = caption.appendChild(document.createElement("b"));
  image.src = picture.image;
  image.alt = "";
  image.title = picture.file;
  answer.textContent = `${picture.confidence} ${classes[picture.answer]}`;
  for (const text of [picture.label === picture.answer ? "right" : `true: ${classes[picture.label]}`, picture.file]) {
    const line = caption.appendChild(document.createElement("span"));
    line.className = "clamp";
    line.textContent = line.title = text;
  }
  return figure;
}

for (const place of document.querySelectorAll("[data-picture]")) {
  place.replaceWith(tile(pictures[place.dataset.picture]));
}

document.querySelector(".matrix").addEventListener("click", (event) => {
  const button = event.target.closest("[data-cell]");
  if (!button) return;
  for (const each of document.querySelectorAll(".matrix [aria-pressed=true]")) each.setAttribute("aria-pressed", "false");
  button.setAttribute("aria-pressed", "true");
  const [label, answer] = button.dataset.cell.split("-").map(Number);
  const found = Object.values(pictures).filter((each) => each.label === label && each.answer === answer);
  const count = Number(button.textContent);
  const title = document.createElement("p");
  const gallery = document.createElement("div");
  gallery.className = "gallery";
  gallery.append(...found.map(tile));
  title.textContent = `${classes[label]}, answered ${classes[answer]}: ${count} picture${count > 1 ? "s" : ""}` +
    (found.length < count ? `, of which ${found.length} are in this page` : "");
  chosen.replaceChildren(title, gallery);
});
