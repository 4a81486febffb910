// An input of the class eofm-filter hides the rows of the table below it that lack one of its words.
// `?filter=s1-grd` in the address fills it in.
function startFilters() {
  for (const input of document.querySelectorAll("input.eofm-filter")) {
    let next = (input.closest("p") || input).nextElementSibling;
    while (next && !next.querySelector("tbody") && next.tagName !== "TABLE") next = next.nextElementSibling;
    if (!next) continue;
    const apply = () => {
      const words = input.value.toLowerCase().split(/\s+/).filter(Boolean);
      for (const row of next.querySelectorAll("tbody tr")) {
        const text = row.textContent.toLowerCase();
        row.hidden = !words.every((word) => text.includes(word));
      }
    };
    input.addEventListener("input", apply);
    const asked = new URLSearchParams(location.search).get("filter");
    if (asked) { input.value = asked; apply(); }
  }
}
document.addEventListener("DOMContentLoaded", startFilters);
