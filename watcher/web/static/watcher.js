// Updates a page and the ages on it, and sends the actions of its buttons and forms. Each page is readable without it.
"use strict";
(() => {
  const root = document.documentElement, EVERY_MS = 2000, STALE_MS = 20000;
  const stored = (key) => { try { return localStorage.getItem(key); } catch { return null; } };
  const store = (key, value) => { try { localStorage.setItem(key, value); } catch { /* private mode */ } };
  root.classList.add("js");
  if (stored("theme")) root.dataset.theme = stored("theme");

  const $ = (selector, within = document) => within.querySelector(selector);
  const $$ = (selector, within = document) => [...within.querySelectorAll(selector)];
  const make = (tag, name, text) => Object.assign(document.createElement(tag), { className: name, textContent: text });

  // Times are those of the server: its Date header gives the difference to the browser's clock.
  let offset = 0, utc = stored("utc") !== "no", stale = false;
  const now = () => Date.now() + offset;
  const duration = (s) => {
    for (const [unit, letter, part, small] of [[86400, "d", 3600, "h"], [3600, "h", 60, "m"], [60, "m", 1, "s"]]) {
      if (s < unit) continue;
      const rest = Math.floor((s % unit) / part);
      return `${Math.floor(s / unit)} ${letter}${rest ? ` ${rest} ${small}` : ""}`;
    }
    return `${Math.floor(s)} s`;
  };
  const two = (n) => String(n).padStart(2, "0");
  const MONTHS = "Jan Feb Mar Apr May Jun Jul Aug Sep Oct Nov Dec".split(" ");
  const clock = (date) => {
    const part = (name) => date[(utc ? "getUTC" : "get") + name](), today = new Date(now());
    const other = utc ? date.toISOString().slice(0, 10) !== today.toISOString().slice(0, 10)
      : date.toDateString() !== today.toDateString();
    const east = -date.getTimezoneOffset(), size = Math.abs(east);
    const zone = utc ? "UTC" : `UTC${east < 0 ? "-" : "+"}${two(Math.floor(size / 60))}:${two(size % 60)}`;
    return (other ? `${MONTHS[part("Month")]} ${part("Date")} ` : "")
      + `${two(part("Hours"))}:${two(part("Minutes"))}:${two(part("Seconds"))}\u00a0${zone}`;
  };
  const put = (element, text) => { if (element.textContent !== text) element.textContent = text; };
  const tick = (within) => {
    for (const each of $$("time.age", within)) put(each, duration(Math.abs(now() - Date.parse(each.dateTime)) / 1000));
    for (const each of $$("time.at", within)) put(each, clock(new Date(each.dateTime)));
  };

  // Live updates: the script loads the page again and replaces the parts that differ.
  let etag = null, heardAt = Date.now(), timer = 0, asking = null, held = false, nextAt = 0, spokenAt = 0, needs = 0;
  const live = () => {
    if (!$("#live")) return;  // nor can the login be old, or a page that there is not
    stale = Date.now() - heardAt > STALE_MS && !document.hidden && !held;
    root.classList.toggle("stale", stale);
    root.classList.toggle("held", held);
    const state = $("#live");
    state.className = `live ${stale ? "off" : "on"}`;
    put(state, `${held ? "held" : stale ? "not live" : "live"} · as of ${clock(new Date(heardAt + offset))}`);
    const banner = $("#banner");
    banner.hidden = !stale;
    if (stale) put(banner.firstElementChild, `Not live since ${clock(new Date(heardAt + offset))}, trying again in `
      + `${Math.max(0, Math.ceil((nextAt - Date.now()) / 1000))} s.`);
  };
  const again = (ms = EVERY_MS) => {
    clearTimeout(timer);
    nextAt = Date.now() + ms;
    if (!document.hidden && !held) timer = setTimeout(ask, ms);
  };
  const ask = () => {
    if (asking || !$("#live")) return;
    const request = asking = new XMLHttpRequest();
    request.open("GET", location.href);
    request.responseType = "document";
    request.timeout = 10000;
    if (etag) request.setRequestHeader("If-None-Match", etag);
    request.setRequestHeader("Accept", "text/html");
    request.onloadend = () => {
      asking = null;
      const moved = request.responseURL && new URL(request.responseURL).pathname === "/login";
      if (moved) { location.href = `/login?next=${encodeURIComponent(location.pathname + location.search)}`; return; }
      if (request.status === 200 || request.status === 304) {
        const date = Date.parse(request.getResponseHeader("Date") || "");
        if (date && Math.abs(date - now()) > 2000) offset = date - Date.now();
        heardAt = Date.now();
        if (request.status === 200 && request.response) { etag = request.getResponseHeader("ETag"); take(request.response); }
      }
      live();
      again(Date.now() - heardAt > EVERY_MS * 2 ? 4000 : EVERY_MS);
    };
    request.send();
  };
  const busy = (part) => {
    const active = document.activeElement;
    return part.contains(active) && active.matches("input,select") || $("[aria-busy=true],.result", part);
  };
  const take = (page) => {
    tick(page);
    fill(page);
    document.title = page.title;
    const icon = $("link[rel=icon]"), other = $("link[rel=icon]", page);
    if (icon && other && icon.href !== other.href) icon.href = other.getAttribute("href");
    say(page);
    for (const part of $$("[data-part]")) {
      const fresh = $(`[data-part="${part.dataset.part}"]`, page);
      if (!fresh || busy(part) || part.outerHTML === fresh.outerHTML) continue;
      const list = $("[data-hold]", part), coming = $("[data-hold]", fresh);
      if (list && coming) hold(part, list, fresh, coming); else swap(part, fresh);
    }
  };
  const swap = (part, fresh) => {
    const focus = part.contains(document.activeElement) && document.activeElement;
    const like = focus && focus.outerHTML;
    const chosen = $("[data-row].at", part), row = chosen && rows().indexOf(chosen);
    const taken = document.adoptNode(fresh);
    taken.classList.add("changed");
    taken.addEventListener("animationend", () => { taken.classList.remove("changed"); if (!taken.className) taken.removeAttribute("class"); }, { once: true });
    if (!matchMedia("(prefers-reduced-motion:no-preference)").matches) { taken.classList.remove("changed"); if (!taken.className) taken.removeAttribute("class"); }
    part.replaceWith(taken);
    const again = like && $$(focus.tagName, taken).find((each) => each.outerHTML === like);
    if (again) again.focus({ preventScroll: true });
    if (row >= 0 && rows()[row]) rows()[row].classList.add("at");
  };
  // A list never jumps: known rows change in place, new rows are shown after a click.
  const hold = (part, list, fresh, coming) => {
    const by = new Map([...coming.children].map((row) => [row.dataset.key, row]));
    let count = by.size;
    for (const row of [...list.children]) {
      const other = by.get(row.dataset.key);
      if (!other) continue;
      count -= 1;
      const chosen = row.classList.contains("at");
      row.classList.remove("at");
      if (!row.className) row.removeAttribute("class");
      if (other.outerHTML !== row.outerHTML && !busy(row)) { const copy = document.importNode(other, true); row.replaceWith(copy); if (chosen) copy.classList.add("at"); }
      else if (chosen) row.classList.add("at");
    }
    let button = $(".fresh", part);
    if (!count) { if (button) button.remove(); return; }
    if (!button) { button = make("button", "fresh", ""); button.type = "button"; part.prepend(button); }
    put(button, `${count} new, show`);
    button.onclick = () => swap(part, fresh);
  };
  const say = (page) => {
    const count = Number((page.title.match(/^\((\d+)\)/) || [0, 0])[1]);
    if (count > needs && Date.now() - spokenAt > 10000) {
      spokenAt = Date.now();
      put($("#said"), `${count - needs} more ${count - needs === 1 ? "thing needs" : "things need"} you`);
    }
    needs = count;
  };

  // Actions: a button or form has method and URL; its fields become the body, "match.labels" a nested field.
  // The first acknowledgement asks for a name, which the browser then stores.
  // A proxy may have named the user, and the daemon takes no other name then.
  const user = () => document.body.dataset.user, person = () => user() || stored("name");
  const fill = (within) => {
    for (const each of $$("input[name=by]", within)) { each.defaultValue = person() || ""; each.readOnly = !!user(); }
  };
  const bodyOf = (element) => {
    const body = JSON.parse(element.dataset.body || "null");
    if ("named" in element.dataset) body.by = person() || prompt("Your name, for the others:");
    if (element.tagName !== "FORM") return body;
    for (const [name, value] of new FormData(element)) {
      if (!value) continue;
      const [outer, inner] = name.split(".");
      if (!inner) body[name] = name === "match" ? JSON.parse(value) : value;
      else body[outer][inner] = inner === "labels" ? JSON.parse(value) : value.split(/[\s,]+/);
    }
    return body;
  };
  const act = async (element) => {
    if (element.getAttribute("aria-busy") === "true") return;
    if (element.dataset.ask && !confirm(element.dataset.ask)) return;
    const body = bodyOf(element);
    if (body && "by" in body) {
      if (!body.by) return;
      if (!user()) store("name", body.by);
    }
    const button = element.tagName === "FORM" ? $("button", element) : element, old = $(":scope > .result", button.parentElement);
    if (old) old.remove();
    const result = make("span", "result", "");
    result.setAttribute("role", "status");
    button.after(result);
    element.setAttribute("aria-busy", "true");
    let text = "", good = false;
    try {
      const answer = await fetch(element.dataset.url, {
        method: element.dataset.method,
        headers: { "Content-Type": "application/json" },
        body: body === null ? undefined : JSON.stringify(body),
      });
      const said = answer.status === 204 ? {} : await answer.json().catch(() => ({}));
      good = answer.ok && said.delivered !== false;
      text = answer.ok ? words(said, answer.status) : said.detail || said.title || `refused (${answer.status})`;
    } catch { text = "no answer: try again"; }
    element.removeAttribute("aria-busy");
    result.className = `result ${good ? "good" : "bad"}`;
    result.textContent = text;
    setTimeout(() => { result.remove(); etag = null; ask(); }, good ? 2500 : 15000);  // meanwhile its part stays as it is
    if (good && element.tagName === "FORM") { fill(element); element.reset(); }
  };
  const words = (said, status) => {
    if ("replayed" in said) return `${said.replayed} sent again`;
    if ("delivered" in said) return [said.delivered ? "delivered" : "not delivered", said.answer, said.remedy].filter(Boolean).join(": ");
    return status === 202 ? "asked for, not done yet" : "done";
  };

  // Keyboard shortcuts.
  const rows = () => $$("[data-row]");
  const move = (by) => {
    const all = rows(), at = all.findIndex((row) => row.classList.contains("at"));
    const next = all[Math.min(all.length - 1, Math.max(0, at + by))];
    if (!next) return;
    if (at >= 0) all[at].classList.remove("at");
    next.classList.add("at");
    const link = $("a.id", next) || $("a", next);
    if (link) link.focus({ preventScroll: true });
    next.scrollIntoView({ block: "nearest" });
  };
  let before = "";
  const keys = {
    "/": () => $(".find input").focus(),
    j: () => move(1),
    k: () => move(-1),
    f: () => { location.href = "/executions?status=failed"; },
    r: () => { const button = $(".at .replay") || $(".replay"); if (button && (button.dataset.ask || confirm("Send it again?"))) act(button); },
    ".": () => { held = !held; if (held) clearTimeout(timer); else ask(); live(); },
    u: () => { utc = !utc; store("utc", utc ? "yes" : "no"); tick(document); live(); },
    "?": () => $("#keys").showModal(),
  };
  const places = { o: "/", p: "/problems", e: "/executions", v: "/events", d: "/deliveries", s: "/silences" };
  const press = (event) => {
    if (event.ctrlKey || event.metaKey || event.altKey || $("#keys").open) return;
    if (event.target.matches("input,select,textarea")) { if (event.key === "Escape") event.target.blur(); return; }
    if (stored("keys") === "no" && event.key !== "?") return;
    if (before === "g" && places[event.key]) { location.href = places[event.key]; return; }
    before = event.key;
    if (keys[event.key]) { event.preventDefault(); keys[event.key](); }
  };

  document.addEventListener("DOMContentLoaded", () => {
    needs = Number((document.title.match(/^\((\d+)\)/) || [0, 0])[1]);
    const on = $("#keyson");
    on.checked = stored("keys") !== "no";
    on.onchange = () => store("keys", on.checked ? "yes" : "no");
    $("#help").onclick = () => $("#keys").showModal();
    $("#theme").onclick = () => {
      const dark = root.dataset.theme ? root.dataset.theme === "dark" : matchMedia("(prefers-color-scheme:dark)").matches;
      root.dataset.theme = dark ? "light" : "dark";
      store("theme", root.dataset.theme);
    };
    $("#banner button").onclick = ask;
    document.addEventListener("keydown", press);
    document.addEventListener("click", (event) => {
      const button = event.target.closest("button[data-url]"), copy = event.target.closest("[data-copy]");
      if (button) act(button);
      if (copy) navigator.clipboard.writeText(copy.dataset.copy).then(() => put(copy, "Copied"), () => put(copy, "not allowed"));
    });
    document.addEventListener("submit", (event) => {
      if (event.target.dataset.url) { event.preventDefault(); act(event.target); }
    });
    document.addEventListener("visibilitychange", () => { if (document.hidden) clearTimeout(timer); else { heardAt = Math.max(heardAt, Date.now() - STALE_MS / 2); ask(); } });
    setInterval(() => { if (document.hidden) return; live(); if (!stale && !held) tick(document); }, 1000);
    tick(document);
    fill(document);
    // After a link from another site the browser sends no session cookie: load the page once more from here.
    const next = location.pathname === "/login" && $("input[name=next]");
    if (next) fetch(next.value, { method: "HEAD", redirect: "manual" }).then((answer) => { if (answer.ok) location.replace(next.value); }, () => {});
    live();
    again();
  });
})();
