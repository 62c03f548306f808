// What reading does without: answers while you type, what a job prints as it prints it, a button that copies.
"use strict";

const later = (work, milliseconds) => {
  let timer;
  return (...given) => { clearTimeout(timer); timer = setTimeout(() => work(...given), milliseconds); };
};

// A search form answers at once; its filters live in the address, so that it can be sent, kept and gone back to.
for (const form of document.querySelectorAll("form[data-live]")) {
  const place = document.querySelector(form.dataset.live);
  let asked = 0;
  const isPhone = window.matchMedia("(max-width: 46rem)");
  const settle = () => {
    place.querySelectorAll(".apply").forEach((button) => { button.hidden = true; });
    const filters = place.querySelector(".filters");
    if (filters && isPhone.matches && place.dataset.opened !== "yes") filters.open = false;
    filters?.addEventListener("toggle", () => { place.dataset.opened = filters.open ? "yes" : "no"; });
  };
  const show = async (address, keep) => {
    const turn = ++asked;
    place.classList.add("is-waiting");
    try {
      const answer = await fetch(address + (address.includes("?") ? "&" : "?") + "part=results");
      const text = await answer.text();
      if (turn !== asked || !answer.ok) return;
      const focused = document.activeElement?.name, value = document.activeElement?.value;
      place.innerHTML = text;  // our own page's list, escaped by the server
      settle();
      if (focused && focused !== "q") {
        const again = [...place.querySelectorAll(`[name="${focused}"]`)];
        (again.find((each) => each.value === value) ?? again[0])?.focus();
      }
      if (keep) history.replaceState(null, "", address);
    } finally {
      if (turn === asked) place.classList.remove("is-waiting");
    }
  };
  const address = () => {
    const given = [...new FormData(form)].filter(([, value]) => value !== "");
    return form.getAttribute("action") + (given.length ? "?" + new URLSearchParams(given) : "");
  };
  const answer = later(() => show(address(), true), 120);
  form.addEventListener("input", answer);
  form.addEventListener("submit", (event) => { event.preventDefault(); show(address(), true); });
  settle();
}

for (const button of document.querySelectorAll("button.copy")) {
  if (!navigator.clipboard) continue;
  button.hidden = false;
  button.addEventListener("click", async () => {
    await navigator.clipboard.writeText(button.parentElement.querySelector("code").textContent);
    button.textContent = "Copied";
    setTimeout(() => { button.textContent = "Copy"; }, 1500);
  });
}

// A form that starts a job shows the command line that it stands for, as it is filled in.
for (const form of document.querySelectorAll("form[data-command]")) {
  const shown = document.querySelector(form.dataset.command);
  const ask = later(async () => {
    const answer = await fetch("/api/command-line", {
      method: "POST", headers: { "X-CSRF-Token": form.elements.csrf.value },
      body: new URLSearchParams([...new FormData(form)].filter(([, value]) => typeof value === "string")),
    });
    const found = await answer.json();
    shown.textContent = answer.ok ? found.command : found.detail;
    shown.closest(".command")?.classList.toggle("is-wrong", !answer.ok);
  }, 200);
  form.addEventListener("input", ask);
  form.addEventListener("submit", () => {
    for (const button of form.querySelectorAll("button[data-busy]")) {
      button.textContent = button.dataset.busy;
      setTimeout(() => { button.disabled = true; });
    }
  });
}

// A job's page follows it: state, bars, what it prints. When it has ended, the page is loaded once more, whole.
for (const live of document.querySelectorAll("[data-events]")) {
  const log = live.querySelector(".log"), bars = live.querySelector(".bars"), state = live.querySelector(".state");
  const source = new EventSource(live.dataset.events);
  const on = (name, work) => source.addEventListener(name, (event) => work(JSON.parse(event.data)));
  on("log", (text) => {
    const isAtEnd = log.scrollHeight - log.scrollTop - log.clientHeight < 40;
    log.textContent = (log.textContent + text).slice(-200000);
    if (isAtEnd) log.scrollTop = log.scrollHeight;
  });
  on("progress", (found) => {
    bars.replaceChildren(...found.bars.map((bar) => {
      const row = document.createElement("div"), label = document.createElement("div"), meter = document.createElement("progress");
      label.className = "label";
      const left = document.createElement("span"), right = document.createElement("span");
      left.textContent = bar.label;
      right.textContent = [bar.total ? `${bar.done} of ${bar.total}` : `${bar.done}`, bar.note].filter(Boolean).join(" · ");
      label.append(left, right);
      meter.setAttribute("aria-label", bar.label);
      if (bar.total) { meter.max = bar.total; meter.value = bar.done; } else if (bar.finished) { meter.max = 1; meter.value = 1; }
      row.append(label, meter);
      return row;
    }));
  });
  on("state", (job) => {
    state.textContent = job.status;
    state.className = `state status ${job.status}`;
    if (job.status !== "queued") live.querySelector(".turn")?.remove();
    if (job.has_ended) { source.close(); location.reload(); }
  });
}
