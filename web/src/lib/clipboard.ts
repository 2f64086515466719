/** Copies a text; where the page came over plain HTTP from another machine, by the older way. */
export async function copyText(text: string): Promise<void> {
  // Browsers give the clipboard to secure pages only, and a gateway on the LAN is none.
  if (navigator.clipboard) return navigator.clipboard.writeText(text);
  const area = document.createElement("textarea");
  area.value = text;
  area.setAttribute("readonly", "");
  area.style.position = "fixed";
  area.style.opacity = "0";
  const focused = document.activeElement;
  document.body.append(area);
  area.select();
  const copied = document.execCommand("copy");
  area.remove();
  if (focused instanceof HTMLElement) focused.focus();
  if (!copied) throw new Error("the browser does not allow it");
}
