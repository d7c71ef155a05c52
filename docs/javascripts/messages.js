// Error messages lead to their section, from the field on their first page and from the search, in which signs such as ":" and
// "--" are operators. The messages are in errors/messages.js, which is written when the site is built and loaded when needed.
"use strict";
(() => {
  const MIN_LENGTH = 6;
  const MIN_PARTIAL = 12;
  const folder = new URL("../errors/", document.currentScript.src);
  let loading = null;

  const load = () => {
    loading ??= new Promise((resolve) => {
      const script = document.createElement("script");
      script.src = new URL("messages.js", folder);
      script.onload = () => resolve(window.errorMessages);
      script.onerror = () => resolve([]);
      document.head.append(script);
    });
    return loading;
  };

  // How many characters of a message a line shares: of its fixed parts in their order, up to the first that is missing.
  const share = (parts, line) => {
    let [from, shared] = [0, 0];
    for (const part of parts) {
      const at = line.indexOf(part, from);
      if (at < 0) return shared < MIN_PARTIAL ? 0 : shared;
      from = at + part.length;
      shared += part.length;
    }
    return shared + 1;
  };

  // The section whose message shares the most characters with a line, which may be a part of a message.
  const find = async (text) => {
    const line = text.replace(/\s+/g, " ").trim();
    if (line.length < MIN_LENGTH) return null;
    let [best, most] = [null, 0];
    for (const section of await load())
      for (const parts of section.messages) {
        const shared = parts.some((part) => part.includes(line)) ? line.length : share(parts, line);
        if (shared > most) [best, most] = [section, shared];
      }
    return best;
  };

  const show = (place, section, otherwise) => {
    place.replaceChildren();
    place.hidden = !section && !otherwise;
    if (!section) {
      place.textContent = otherwise;
      return;
    }
    const link = document.createElement("a");
    link.href = new URL(section.address, folder);
    link.textContent = `Error message: ${section.title}`;
    link.style.color = "var(--md-typeset-a-color)";
    place.append(link);
  };

  const finder = document.getElementById("message-finder");
  if (finder) {
    const [box, result] = [finder.querySelector("input"), finder.querySelector("output")];
    box.addEventListener("input", async () => {
      const text = box.value;
      const section = await find(text);
      if (text === box.value)
        show(result, section, text.trim().length < MIN_LENGTH ? "" : "No message fits. Search for its words.");
    });
    finder.hidden = false;
  }

  const search = document.querySelector(".md-search__input");
  const results = document.querySelector(".md-search__scrollwrap");
  if (!search || !results) return;
  const hit = document.createElement("p");
  hit.className = "md-search-result__meta";
  hit.hidden = true;
  results.prepend(hit);
  const lookUp = async (text) => show(hit, await find(text), "");
  let pasted = "";
  search.addEventListener("paste", (event) => {
    event.preventDefault();
    const text = event.clipboardData.getData("text/plain");
    const words = text.replace(/^\s*(error|note):/, "").replace(/[^\p{L}\p{N}_.]+|\.\s/gu, " ").trim();
    search.setRangeText(words, search.selectionStart, search.selectionEnd, "end");
    pasted = search.value;
    lookUp(text);
    search.dispatchEvent(new KeyboardEvent("keyup", { bubbles: true }));
  });
  search.addEventListener("keyup", () => {
    if (search.value !== pasted) lookUp(search.value);
  });
})();
