// How labels look: as in every other picture of the run, and in further colours where a label is free text.
const FURTHER = ["#0072B2", "#D55E00", "#009E73", "#CC79A7", "#E69F00", "#56B4E9"];
const HATCH = {
  "////": (ink) => `repeating-linear-gradient(135deg, ${ink} 0 1px, transparent 1px 6px)`,
  "\\\\\\\\": (ink) => `repeating-linear-gradient(45deg, ${ink} 0 1px, transparent 1px 6px)`,
  "xxxx": (ink) => `repeating-linear-gradient(45deg, ${ink} 0 1px, transparent 1px 6px), repeating-linear-gradient(135deg, ${ink} 0 1px, transparent 1px 6px)`,
  "....": (ink) => `radial-gradient(${ink} 1px, transparent 1.4px) 0 0 / 6px 6px`,
};

export function dress(element, label, place, looks) {
  const look = looks[label] ?? { colour: FURTHER[place % FURTHER.length], hatch: "", ink: "#111" };
  element.style.background = look.hatch ? `${HATCH[look.hatch](look.ink)}, ${look.colour}` : look.colour;
}

// Black, purple, orange, yellow: even steps of lightness.
const STOPS = [[0, 0, 4], [40, 17, 89], [114, 31, 129], [183, 55, 121], [241, 96, 93], [254, 159, 109], [252, 253, 191]];
const COLOURS = Array.from({ length: 256 }, (_, value) => {
  const at = (value / 255) * (STOPS.length - 1);
  const low = Math.min(STOPS.length - 2, Math.floor(at));
  return STOPS[low].map((part, i) => part + (at - low) * (STOPS[low + 1][i] - part));
});

export async function paint(canvas, picture) {
  const bytes = Uint8Array.from(atob(picture.png), (c) => c.charCodeAt(0));
  const image = await createImageBitmap(new Blob([bytes], { type: "image/png" }));
  canvas.width = image.width;
  canvas.height = image.height;
  const context = canvas.getContext("2d", { willReadFrequently: true });
  context.drawImage(image, 0, 0);
  const pixels = context.getImageData(0, 0, image.width, image.height);
  for (let i = 0; i < pixels.data.length; i += 4) {
    const [red, green, blue] = COLOURS[pixels.data[i]];
    pixels.data[i] = red; pixels.data[i + 1] = green; pixels.data[i + 2] = blue;
  }
  context.putImageData(pixels, 0, 0);
}
