// The film on its canvas: window, inversion, zoom, and the map over it.

// Matplotlib's inferno at nine places.
const COLOURS = [[0, 0, 4], [31, 12, 72], [85, 15, 109], [136, 34, 106], [186, 54, 85], [227, 89, 51], [249, 140, 10], [249, 201, 50], [252, 255, 164]];
const OPACITY = 0.6;
const ZOOMS = [1, 1.5, 2, 3, 4, 6, 8];
const byId = (id) => document.getElementById(id);
let levels = null; // gray, one byte a pixel
let side = 0;
let zoom = 0;

/** Shows the picture of a blob, which is gray and square. */
export async function show(blob) {
  const bitmap = await createImageBitmap(blob);
  side = bitmap.width;
  for (const canvas of [byId("pixels"), byId("heat")]) canvas.width = canvas.height = side;
  const context = byId("pixels").getContext("2d", { willReadFrequently: true });
  context.drawImage(bitmap, 0, 0);
  const rgba = context.getImageData(0, 0, side, side).data;
  levels = Uint8Array.from({ length: side * side }, (_, place) => rgba[4 * place]);
  reset();
}

/** Lays a map over the film: levels from 0 to 255 of a square, in base64; null takes it away. */
export function light(map) {
  const heat = byId("heat");
  heat.classList.toggle("shown", map !== null);
  if (map === null) return;
  const small = new OffscreenCanvas(map.side, map.side);
  const image = new ImageData(map.side, map.side);
  const bytes = Uint8Array.from(atob(map.levels), (letter) => letter.charCodeAt(0));
  bytes.forEach((level, place) => image.data.set([...colour(level / 255), OPACITY * level], 4 * place));
  small.getContext("2d").putImageData(image, 0, 0);
  const context = heat.getContext("2d");
  context.clearRect(0, 0, side, side);
  context.drawImage(small, 0, 0, side, side);
}

function colour(value) {
  const place = Math.min(value * (COLOURS.length - 1), COLOURS.length - 1.001);
  const [low, high] = [COLOURS[Math.floor(place)], COLOURS[Math.floor(place) + 1]];
  return low.map((from, channel) => from + (high[channel] - from) * (place % 1));
}

function draw() {
  if (levels === null) return;
  const centre = Number(byId("centre").value);
  const width = Number(byId("width").value);
  const inverted = byId("invert").getAttribute("aria-pressed") === "true";
  const shown = Uint8ClampedArray.from({ length: 256 }, (_, level) => 255 * ((level - centre) / width + 0.5));
  if (inverted) shown.forEach((level, place) => { shown[place] = 255 - level; });
  const image = new ImageData(side, side);
  levels.forEach((level, place) => image.data.fill(shown[level], 4 * place, 4 * place + 3));
  for (let place = 3; place < image.data.length; place += 4) image.data[place] = 255;
  byId("pixels").getContext("2d").putImageData(image, 0, 0);
}

function scale(step) {
  zoom = Math.max(0, Math.min(ZOOMS.length - 1, step));
  byId("sheet").style.width = `${100 * ZOOMS[zoom]}%`;
  byId("scale").value = `${100 * ZOOMS[zoom]} %`;
}

function reset() {
  byId("centre").value = 128;
  byId("width").value = 255;
  byId("invert").setAttribute("aria-pressed", "false");
  scale(0);
  draw();
}

byId("centre").addEventListener("input", draw);
byId("width").addEventListener("input", draw);
byId("invert").addEventListener("click", () => {
  const button = byId("invert");
  button.setAttribute("aria-pressed", String(button.getAttribute("aria-pressed") !== "true"));
  draw();
});
byId("in").addEventListener("click", () => scale(zoom + 1));
byId("out").addEventListener("click", () => scale(zoom - 1));
byId("reset").addEventListener("click", reset);
