"use strict";
const { rows, classes } = JSON.parse(document.getElementById("state").textContent);
const byId = (id) => document.getElementById(id);
const large = byId("large");
const undone = [];
let current = Math.max(0, rows.findIndex((row) => !row.decision));

function element(kind, text, into, properties = {}) {
  const made = into.appendChild(document.createElement(kind));
  made.textContent = text;
  return Object.assign(made, properties);
}

function card(row, index) {
  const box = element("section", "", byId("rows"), { className: "row" });
  const picture = element("button", "", box, { className: "picture", type: "button", title: "enlarge" });
  element("img", "", picture, { src: `picture/${index}`, loading: "lazy", alt: row.image });
  picture.onclick = () => enlarge(index);
  element("p", `${row.label} → ${row.suggestion} ${row.confidence}`, box);
  element("p", row.reason, box, { className: "soft" });
  element("p", row.image, box, { className: "soft" });
  const choices = element("div", "", box, { className: "choices" });
  const button = (text, decision) => {
    const made = element("button", text, choices, { type: "button", title: decision });
    made.dataset.decision = decision;
    made.onclick = () => decide(index, decision);
  };
  button("keep", "keep");
  button("drop", "drop");
  if (row.suggestion !== row.label) button(row.suggestion, row.suggestion);
  const select = element("select", "", choices);
  select.setAttribute("aria-label", "another class");
  for (const name of ["another class…", ...classes]) element("option", name, select, { value: name });
  select.options[0].value = "";
  select.onchange = () => { if (select.value) decide(index, select.value); };
  return box;
}

const cards = rows.map(card);

function show() {
  const decided = rows.filter((row) => row.decision).length;
  byId("count").textContent = `${decided} of ${rows.length} decided`;
  byId("undo").disabled = !undone.length;
  cards.forEach((box, index) => {
    const { decision } = rows[index];
    box.classList.toggle("current", index === current);
    box.classList.toggle("decided", Boolean(decision));
    for (const button of box.querySelectorAll("[data-decision]")) {
      button.setAttribute("aria-pressed", String(button.dataset.decision === decision));
    }
    box.querySelector("select").value = classes.includes(decision) ? decision : "";
  });
}

function move(index) {
  current = Math.min(rows.length - 1, Math.max(0, index));
  show();
  cards[current].scrollIntoView({ block: "nearest" });
}

function enlarge(index) {
  move(index);
  large.firstElementChild.src = `picture/${index}`;
  large.showModal();
}
large.onclick = () => large.close();

async function post(path, content) {
  try {
    const answer = await fetch(path, {
      method: "POST", headers: { "Content-Type": "application/json" }, body: JSON.stringify(content),
    });
    byId("problem").textContent = answer.ok ? "" : await answer.text();
    return answer.ok;
  } catch {
    byId("problem").textContent = "The page's server has ended: run the same command again.";
    return false;
  }
}

async function write(index, decision) {
  const ok = await post("decide", { image: rows[index].image, decision });
  if (ok) rows[index].decision = decision;
  return ok;
}

async function decide(index, decision) {
  const before = rows[index].decision;
  if (!(await write(index, decision))) return show();
  undone.push([index, before]);
  document.activeElement?.blur();
  const next = rows.findIndex((row, place) => place > index && !row.decision);
  if (large.open) large.close();
  move(next < 0 ? index : next);
}

async function undo() {
  if (!undone.length) return;
  const [index, before] = undone.at(-1);
  if (await write(index, before)) undone.pop();
  move(index);
}

byId("undo").onclick = undo;
byId("done").onclick = async () => {
  if (await post("done", {})) document.body.textContent = "This page is finished: see what the terminal says.";
};

const keys = {
  k: () => decide(current, "keep"),
  d: () => decide(current, "drop"),
  s: () => decide(current, rows[current].suggestion === rows[current].label ? "keep" : rows[current].suggestion),
  r: () => { large.close(); cards[current].querySelector("select").focus(); },
  u: undo,
  arrowleft: () => move(current - 1),
  arrowright: () => move(current + 1),
  enter: () => (large.open ? large.close() : enlarge(current)),
};
document.addEventListener("keydown", (event) => {
  const action = keys[event.key.toLowerCase()];
  const busy = event.target.closest("select, header button") || event.ctrlKey || event.metaKey || event.altKey;
  if (!action || busy || event.repeat && !event.key.startsWith("Arrow")) return;
  event.preventDefault();
  action();
});
show();
cards[current]?.scrollIntoView({ block: "nearest" });
