/**
 * The simulated kernel's sysfs and device nodes as a folder of plain files, which programs read without asking. What changed is written before
 * anybody hears of it: after every call, and piece by piece while nothing else is to do.
 */
import {
  closeSync,
  ftruncateSync,
  lstatSync,
  mkdirSync,
  openSync,
  readdirSync,
  rmSync,
  symlinkSync,
  truncateSync,
  unlinkSync,
  writeFileSync,
  writeSync,
} from 'node:fs';
import { dirname, join, relative } from 'node:path';
import type { Attribute, Sysfs } from '@siov/vfs';

/** Directories that are ours alone: whatever the machine has there is not seen. */
const ALWAYS = ['/sys/bus/dsa', '/dev/dsa', '/dev/iax'];
/** The same where the simulated machine has anything in them when it starts. Otherwise the real ones are seen. */
const WHERE_OFFERED = ['/sys/class/uacce', '/dev/vfio', '/sys/bus/pci/devices', '/sys/kernel/iommu_groups'];

export class Tree {
  readonly #root: string;
  readonly #sysfs: Sysfs;
  /** Texts of attributes as they are in the folder, by path below /sys. */
  readonly #texts = new Map<string, string>();
  readonly #attributes = new Map<string, Attribute>();
  readonly #links = new Map<string, string>();
  readonly #folders = new Set<string>();
  readonly #nodes = new Map<string, number>();
  /** Attributes that are looked at one after the other. */
  #rest: string[] = [];

  constructor(root: string, sysfs: Sysfs) {
    this.#root = root;
    this.#sysfs = sysfs;
  }

  /** Which directories are ours alone, for the shim, which reads them once: each with a 0 at its end. */
  begin(nodes: ReadonlyMap<string, number>): void {
    const offered = WHERE_OFFERED.filter(
      (path) => this.#sysfs.list(path).length > 0 || [...nodes.keys()].some((node) => node.startsWith(`${path}/`)),
    );
    const opaque = [...ALWAYS, ...offered];
    for (const path of opaque) mkdirSync(join(this.#root, path), { recursive: true });
    writeFileSync(join(this.#root, 'opaque'), opaque.map((path) => `${path}\0`).join(''));
    this.sync(nodes);
  }
  /** Everything as it is now. `nodes`: paths of device nodes and their numbers. */
  sync(nodes: ReadonlyMap<string, number>): void {
    const seen = new Set<string>();
    this.#attributes.clear();
    this.#sysfs.walk({
      directory: (path) => {
        seen.add(path);
        this.#folder(path);
      },
      link: (path, target) => {
        seen.add(path);
        this.#link(path, target);
      },
      attribute: (path, attribute) => {
        seen.add(path);
        this.#attributes.set(path, attribute);
        this.#attribute(path, attribute);
      },
    });
    for (const known of [this.#texts, this.#links]) for (const path of known.keys()) if (!seen.has(path)) this.#drop(known, path);
    for (const path of [...this.#folders].reverse())
      if (!seen.has(path)) {
        rmSync(join(this.#root, path), { recursive: true, force: true });
        this.#folders.delete(path);
      }
    for (const path of this.#nodes.keys()) if (!nodes.has(path)) this.#drop(this.#nodes, path);
    for (const [path, number] of nodes) {
      if (this.#nodes.get(path) === number) continue;
      const file = join(this.#root, path);
      mkdirSync(dirname(file), { recursive: true });
      // The number is the size: the shim shows a node of it.
      writeFileSync(file, '', { mode: 0o666 });
      truncateSync(file, number);
      this.#nodes.set(path, number);
    }
  }

  /** Looks at a few attributes: some change by themselves. */
  some(count: number): void {
    if (this.#rest.length === 0) this.#rest = [...this.#texts.keys()];
    for (let i = 0; i < count; i++) {
      const path = this.#rest.pop();
      if (path === undefined) return;
      const attribute = this.#attributes.get(path);
      if (attribute) this.#attribute(path, attribute);
    }
  }

  #drop(known: Map<string, unknown>, path: string): void {
    unlink(join(this.#root, path));
    known.delete(path);
  }

  #folder(path: string): void {
    if (this.#folders.has(path)) return;
    mkdirSync(join(this.#root, path), { recursive: true });
    this.#folders.add(path);
  }
  #link(path: string, target: string): void {
    if (this.#links.get(path) === target) return;
    unlink(join(this.#root, path));
    symlinkSync(target.startsWith('/') ? relative(dirname(path), target) : target, join(this.#root, path));
    this.#links.set(path, target);
  }
  #attribute(path: string, attribute: Attribute): void {
    const shown = attribute.show?.() ?? '';
    const mode = (attribute.show ? 0o444 : 0) | (attribute.store ? 0o200 : 0);
    const text = typeof shown === 'string' ? shown : '';
    if (this.#texts.get(path) === text) return;
    const file = join(this.#root, path);
    if (!this.#texts.has(path)) writeFileSync(file, text, { mode });
    else {
      // In place: who has it open reads what is there now.
      const fd = openSync(file, 'r+');
      writeSync(fd, text, 0, 'latin1');
      ftruncateSync(fd, text.length);
      closeSync(fd);
    }
    this.#texts.set(path, text);
  }
}

/** Takes a file or a link, never what a link leads to; nothing there is no error. */
function unlink(path: string): void {
  try {
    unlinkSync(path);
  } catch (error) {
    if ((error as NodeJS.ErrnoException).code !== 'ENOENT') throw error;
  }
}

/** Folders of servers that are gone: their process has ended. */
export function sweep(folder: string, prefix: string): void {
  for (const name of readdirSync(folder)) {
    const pid = new RegExp(`^${prefix}(\\d+)-[0-9a-f]+$`).exec(name)?.[1];
    if (pid === undefined) continue;
    try {
      lstatSync(`/proc/${pid}`);
    } catch {
      rmSync(join(folder, name), { recursive: true, force: true });
    }
  }
}
