// Names and keyboard focus for what the theme makes while the page is open: its search, wide tables, buttons of blocks.
const reach = () => {
  for (const dialog of document.querySelectorAll(".md-search[role=dialog]:not([aria-label])")) dialog.ariaLabel = "Search";
  for (const table of document.querySelectorAll(".md-typeset__scrollwrap:not([tabindex])")) table.tabIndex = 0;
  document.querySelectorAll(".md-code__nav").forEach((buttons, index) => { buttons.ariaLabel = `Block ${index + 1}`; });
};
new MutationObserver(reach).observe(document.documentElement, {childList: true, subtree: true});
reach();
