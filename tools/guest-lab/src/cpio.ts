/** Archives that the kernel unpacks as its first file system: cpio in the "new ASCII" form (Documentation/driver-api/early-userspace/buffer-format.rst). */

export type Entry =
  | { readonly path: string; readonly folder: true }
  | { readonly path: string; readonly data: Uint8Array | string; readonly executable?: boolean }
  | { readonly path: string; readonly link: string }
  | { readonly path: string; readonly device: readonly [major: number, minor: number] };

/** File types of st_mode, linux/stat.h. */
const type = { folder: 0o040000, file: 0o100000, link: 0o120000, characters: 0o020000 } as const;

/** Packs the entries; folders above them are made where they are missing. Several archives in a row are one to the kernel. */
export function cpio(entries: readonly Entry[]): Buffer {
  const out: Buffer[] = [];
  const made = new Set<string>();
  let inode = 1;
  const put = (path: string, mode: number, data: Buffer, device: readonly [number, number] = [0, 0]): void => {
    const name = Buffer.from(`${path}\0`);
    const fields = [inode++, mode, 0, 0, 1, 0, data.length, 0, 0, device[0], device[1], name.length, 0];
    out.push(padded(Buffer.concat([Buffer.from(`070701${fields.map((n) => n.toString(16).padStart(8, '0')).join('')}`), name])), padded(data));
  };
  const above = (path: string): void => {
    const cut = path.lastIndexOf('/');
    if (cut > 0) folder(path.slice(0, cut));
  };
  const folder = (path: string): void => {
    if (made.has(path)) return;
    above(path);
    made.add(path);
    put(path, type.folder | 0o755, Buffer.alloc(0));
  };
  for (const entry of entries) {
    if ('folder' in entry) {
      folder(entry.path);
      continue;
    }
    above(entry.path);
    if ('link' in entry) put(entry.path, type.link | 0o777, Buffer.from(entry.link));
    else if ('device' in entry) put(entry.path, type.characters | 0o600, Buffer.alloc(0), entry.device);
    else put(entry.path, type.file | (entry.executable ? 0o755 : 0o644), Buffer.from(entry.data));
  }
  put('TRAILER!!!', 0, Buffer.alloc(0));
  return Buffer.concat(out);
}
const padded = (data: Buffer): Buffer => Buffer.concat([data, Buffer.alloc(-data.length & 3)]);
