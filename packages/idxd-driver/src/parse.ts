/** Texts that are written to attributes, read as the kernel reads them. Linux lib/kstrtox.c, lib/bitmap-str.c. A negative answer is -errno. */
import { Errno } from '@siov/layout/uapi';

/** Kernel strings end at a zero byte; numbers and words may have one newline behind them. */
export const line = (text: string): string => text.split('\0', 1)[0]!.replace(/\n$/, '');

/** kstrtol: a whole number in base 10 or, with base 0, also 0x and 0 (octal). NaN: no number. */
export function integer(text: string, base: 0 | 10, signed: boolean): number {
  const [, sign, body] = /^([+-]?)(.+)$/s.exec(line(text)) ?? [];
  if (body === undefined || (sign === '-' && !signed)) return Number.NaN;
  const hex = base === 0 && /^0[xX][0-9a-fA-F]+$/.test(body);
  const octal = base === 0 && /^0[0-7]*$/.test(body);
  const value = hex
    ? Number(body)
    : octal
      ? Number.parseInt(body, 8)
      : /^[0-9]+$/.test(body) && !(base === 0 && body[0] === '0')
        ? Number(body)
        : Number.NaN;
  // Beyond 64 bits: ERANGE, which every attribute turns into EINVAL.
  return value >= 2 ** (signed ? 63 : 64) ? Number.NaN : sign === '-' ? -value : value;
}

/** kstrtobool: 1 or 0, or -EINVAL. What follows is not looked at. */
export function boolean(text: string): number {
  const first = text[0]?.toLowerCase() ?? '';
  if ('yt1'.includes(first) && first) return 1;
  if ('nf0'.includes(first) && first) return 0;
  const second = text[1]?.toLowerCase();
  return first === 'o' && second === 'n' ? 1 : first === 'o' && second === 'f' ? 0 : -Errno.EINVAL;
}

/** bitmap_parse: words of up to eight hexadecimal digits, the highest first. 0, or -errno with `out` as it was. */
export function bitmap(text: string, out: Uint32Array): number {
  const chunks = line(text).trim().split(',').reverse();
  const words = new Uint32Array(out.length);
  for (const [i, chunk] of chunks.entries()) {
    const digits = chunk.trim();
    if (!/^[0-9a-fA-F]+$/.test(digits)) return -Errno.EINVAL;
    if (digits.length > 8 || (i >= words.length && Number.parseInt(digits, 16) !== 0)) return -Errno.EOVERFLOW;
    if (i < words.length) words[i] = Number.parseInt(digits, 16);
  }
  out.set(words);
  return 0;
}

/** printk's %*pb: all words, the highest first. */
export const showBitmap = (words: Uint32Array): string =>
  [...words]
    .map((word) => word.toString(16).padStart(8, '0'))
    .reverse()
    .join(',');
