// A compressed model's file in the reader's browser: safetensors, and codes back to numbers.
// Chapter: chapters/09_smalltalk_model.ipynb
// The numbers are those of scratchbook/compression, rounded to float32 at the same places.
(function define(root) {
  "use strict";

  const SCALES_IN_A_BLOCK = 256;

  function bytesFromBase64(text) {
    if (typeof atob !== "function") return Uint8Array.from(Buffer.from(text, "base64"));
    const binary = atob(text);
    const bytes = new Uint8Array(binary.length);
    for (let i = 0; i < binary.length; i++) bytes[i] = binary.charCodeAt(i);
    return bytes;
  }

  function halfToNumber(bits) {
    const [exponent, fraction] = [(bits >> 10) & 0x1f, bits & 0x3ff];
    const size = exponent === 0 ? fraction * 2 ** -24
      : exponent === 31 ? (fraction ? NaN : Infinity) : (1 + fraction / 1024) * 2 ** (exponent - 15);
    return bits & 0x8000 ? -size : size;
  }

  function brainToNumbers(bits) {
    return new Float32Array(Uint32Array.from(bits, (each) => each << 16).buffer);
  }

  // How the numbers of a tensor become a typed array; `buffer` begins with the first of them.
  const TYPES = {
    F32: (buffer) => new Float32Array(buffer),
    F16: (buffer) => Float32Array.from(new Uint16Array(buffer), halfToNumber),
    BF16: (buffer) => brainToNumbers(new Uint16Array(buffer)),
    I8: (buffer) => new Int8Array(buffer),
    U8: (buffer) => new Uint8Array(buffer),
  };

  // {metadata, tensor(name)}: the tensors are read as they are asked for.
  function readSafetensors(bytes) {
    const cut = (wanted) => new Error(`the model's file is cut short: ${wanted} bytes are asked for, there are ${bytes.length}`);
    if (bytes.length < 8) throw cut(8);
    const start = 8 + Number(new DataView(bytes.buffer, bytes.byteOffset, 8).getBigUint64(0, true));
    if (start > bytes.length) throw cut(start);
    const { __metadata__: metadata = {}, ...tensors } = JSON.parse(new TextDecoder().decode(bytes.subarray(8, start)));
    const end = Object.values(tensors).reduce((last, { data_offsets: at }) => Math.max(last, start + at[1]), start);
    if (end !== bytes.length) throw cut(end);
    const tensor = (name) => {
      if (!(name in tensors)) throw new Error(`the model's file has no tensor ${name}`);
      const { dtype, data_offsets: [first, last] } = tensors[name];
      if (!(dtype in TYPES)) throw new Error(`${name} is of type ${dtype}, which is not read here`);
      return TYPES[dtype](bytes.slice(start + first, start + last).buffer);
    };
    return { metadata, tensor, has: (name) => name in tensors };
  }

  // Scales that are codes themselves: in blocks of 256, by their difference from the mean.
  function scalesOf(part, scheme, tables) {
    if (!scheme.double) return part("scales");
    const [absmax, mean] = [part("scale_absmax"), part("scale_mean")[0]];
    return Float32Array.from(part("scale_codes"), (code, i) =>
      Math.fround(tables.scales[code] * absmax[Math.floor(i / SCALES_IN_A_BLOCK)]) + mean);
  }

  function valuesOf(codes, scheme, [rows, columns], tables) {
    if (scheme.kind === "int8") return Float32Array.from(codes);
    const table = tables[scheme.kind];
    if (!table) throw new Error(`codes of kind ${scheme.kind} are not read here`);
    const values = new Float32Array(rows * columns);
    const stride = Math.ceil(columns / 2); // two codes in a byte, the first in its upper half
    for (let row = 0, at = 0; row < rows; row++) {
      for (let i = 0; i < columns; i++, at++) {
        const byte = codes[row * stride + (i >> 1)];
        values[at] = table[i % 2 ? byte & 15 : byte >> 4];
      }
    }
    return values;
  }

  // The matrix that codes and scales stand for; `part(name)` gives what the file has of it.
  function dequantize(part, scheme, [rows, columns], tables) {
    const values = valuesOf(part("codes"), scheme, [rows, columns], tables);
    const scales = scalesOf(part, scheme, tables);
    const zeros = scheme.symmetric ? null : part("zeros");
    const size = values.length / scales.length; // numbers that share a scale: a stretch of a row
    if (!Number.isInteger(size)) throw new Error(`${scales.length} scales do not divide ${values.length} codes`);
    for (let group = 0, at = 0; group < scales.length; group++) {
      const zero = zeros ? zeros[group] : 0;
      for (const end = at + size; at < end; at++) values[at] = (values[at] - zero) * scales[group];
    }
    return values;
  }

  const api = { bytesFromBase64, halfToNumber, readSafetensors, dequantize };
  api.source = `(${define})(self);`;
  (root.Scratchbook = root.Scratchbook || {}).safetensors = api;
  if (typeof module !== "undefined") module.exports = api;
})(typeof window === "undefined" ? globalThis : window);
