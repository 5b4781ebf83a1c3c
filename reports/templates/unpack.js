// What the page carries packed: gzip in base64, in an element that is no script.
"use strict";
window.mtbenchUnpack = async (id) => {
  const packed = document.getElementById(id).textContent;
  const bytes = Uint8Array.from(atob(packed), (c) => c.charCodeAt(0));
  return new Response(new Blob([bytes]).stream().pipeThrough(new DecompressionStream("gzip"))).text();
};
