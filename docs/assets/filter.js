// An input of the class eofm-filter hides the rows of the table below it that lack one of its words.
function startFilters() {
  for (const input of document.querySelectorAll("input.eofm-filter")) {
    let next = (input.closest("p") || input).nextElementSibling;
    while (next && !next.querySelector("tbody") && next.tagName !== "TABLE") next = next.nextElementSibling;
    if (!next) continue;
    input.addEventListener("input", () => {
      const words = input.value.toLowerCase().split(/\s+/).filter(Boolean);
      for (const row of next.querySelectorAll("tbody tr")) {
        const text = row.textContent.toLowerCase();
        row.hidden = !words.every((word) => text.includes(word));
      }
    });
  }
}
document.addEventListener("DOMContentLoaded", startFilters);
