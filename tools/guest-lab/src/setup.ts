/**
 * Everything that a guest needs, made from Debian's packages in a folder of the user's cache: QEMU, a kernel, its modules, accel-config, and two
 * modules built here. Packages are unpacked, never installed: nothing outside the folder changes. QEMU runs from there with Debian's own loader.
 */
import { spawnSync } from 'node:child_process';
import { copyFileSync, existsSync, mkdirSync, readdirSync, readFileSync, renameSync, rmSync, symlinkSync, writeFileSync } from 'node:fs';
import { homedir } from 'node:os';
import { basename, join } from 'node:path';
import { fileURLToPath } from 'node:url';
import { cpio, type Entry } from './cpio.js';
import { mirror } from './mirror.js';
import { CommandFailed, LabProblem } from './problem.js';
import { run } from './processes.js';
import { alone, finish, open, type Step } from './steps.js';

/** Raised when a step does something else with the same inputs. */
const REVISION = '1';
const SUITE = 'trixie';
const BACKPORTS = `${SUITE}-backports`;
/** Beside the kernel's own packages. Those of the second line are what Debian's essential system would bring: a shell and tools for kbuild. */
const packages = ['qemu-system-x86', 'accel-config', 'accel-config-test', 'gcc', 'make', 'busybox-static', 'kmod', 'pciutils', 'xz-utils'];
const essential = ['dash', 'bash', 'coreutils', 'sed', 'grep', 'mawk', 'findutils'];
/** Modules of the kernel's package that the guest has: folders and files below its `kernel` folder. */
const kernelModules = ['drivers/dma/idxd', 'drivers/crypto/intel/iaa', 'crypto/deflate.ko.xz'];
/** Unpacked in parts only. */
const partial = /^linux-(modules|source)-/;
const keyrings = ['/usr/share/keyrings/debian-archive-keyring.gpg', '/usr/share/keyrings/debian-archive-keyring.pgp'];

/** Files of this package: what goes into the guest, and our module. */
const own = (path: string): string => fileURLToPath(new URL(`../${path}`, import.meta.url));
const filesOf = (folder: string): string[] => readdirSync(own(folder)).sort();

export class Cache {
  readonly folder: string;

  constructor(folder: string = join(process.env.XDG_CACHE_HOME || join(homedir(), '.cache'), 'siov', 'guest-lab')) {
    this.folder = folder;
  }
  readonly stamps = (): string => join(this.folder, 'stamps');
  readonly apt = (...path: string[]): string => join(this.folder, 'apt', ...path);
  readonly tree = (...path: string[]): string => join(this.folder, 'tree', ...path);
  readonly modules = (...path: string[]): string => join(this.folder, 'modules', ...path);
  readonly initrd = (): string => join(this.folder, 'initrd.cpio');
  readonly kernel = (): string => this.tree(`usr/lib/modules/${this.release}/vmlinuz`);
  /** The kernel's release, as uname says it. */
  get release(): string {
    return readFileSync(join(this.folder, 'release'), 'utf8').trim();
  }
  /** A program of the tree and its arguments, to be run outside of it: its libraries come from the tree too. */
  program(path: string, ...args: string[]): [string, string[]] {
    const libraries = this.tree('usr/lib/x86_64-linux-gnu');
    return [join(libraries, 'ld-linux-x86-64.so.2'), ['--library-path', libraries, this.tree(path), ...args]];
  }
}

/** apt with a world of its own: its lists, archives and (empty) record of what is installed lie in the cache. */
const aptOptions = (cache: Cache): string[] =>
  Object.entries({
    'Dir::Etc::SourceList': cache.apt('sources.list'),
    'Dir::Etc::SourceParts': '/dev/null',
    'Dir::State::Lists': cache.apt('lists'),
    'Dir::State::status': cache.apt('status'),
    'Dir::State::extended_states': cache.apt('extended_states'),
    'Dir::Cache::Archives': cache.apt('archives'),
    'Dir::Cache::pkgcache': '',
    'Dir::Cache::srcpkgcache': '',
    'APT::Architecture': 'amd64',
    'APT::Architectures': 'amd64',
    'APT::Default-Release': BACKPORTS,
    'APT::Install-Recommends': 'false',
    'APT::Sandbox::User': 'root',
    'Acquire::Languages': 'none',
    'Acquire::Retries': '3',
    'APT::Update::Error-Mode': 'any',
    'Debug::NoLocking': 'true',
  }).flatMap(([name, value]) => ['-o', `${name}=${value}`]);

/** apt-get, of which everything but the archive is ours: if it fails, the archive is to blame. */
async function apt(cache: Cache, ...args: string[]): Promise<void> {
  try {
    await run('apt-get', [...aptOptions(cache), '-q', ...args]);
  } catch (error) {
    if (!(error instanceof CommandFailed)) throw error;
    throw new LabProblem(`Debian's packages cannot be had (SIOV_DEBIAN_MIRROR=URL names another archive); ${error.message}`);
  }
}

const found = (program: string): boolean => spawnSync('sh', ['-c', `command -v ${program}`], { stdio: 'ignore' }).status === 0;

/** How a program sees the tree as its root: in namespaces of its own, which any user may have where the kernel lets him; else as root. */
function chroot(cache: Cache): (command: readonly string[]) => Promise<string> {
  const root = process.getuid?.() === 0;
  const inside = `mkdir -p "$0/proc" "$0/dev" && : >> "$0/dev/null" && mount --bind /dev/null "$0/dev/null" && mount --rbind /proc "$0/proc" && exec chroot "$0" "$@"`;
  const spaces = root ? ['-m'] : ['-rm'];
  if (spawnSync('unshare', [...spaces, 'true'], { stdio: 'ignore' }).status === 0)
    return (command) => run('unshare', [...spaces, 'sh', '-c', inside, cache.tree(), ...command]);
  if (!root)
    throw new LabProblem(`building the guest's modules needs root, or user namespaces: once, as root,
  XDG_CACHE_HOME=${join(cache.folder, '../..')} siov guest --set-up
and then as any user that can read that folder`);
  // A container without the right to mount: programs write to /dev/null, and objtool looks up where its stack is, to explain its own overflows.
  return async (command) => {
    for (const folder of ['proc/self', 'dev']) mkdirSync(cache.tree(folder), { recursive: true });
    writeFileSync(cache.tree('proc/self/maps'), '7f0000000000-7ffffffff000 rw-p 00000000 00:00 0                          [stack]\n');
    if (!existsSync(cache.tree('dev/null'))) await run('mknod', ['-m', '666', cache.tree('dev/null'), 'c', '1', '3']);
    return run('chroot', [cache.tree(), ...command]);
  };
}

const unpack = (deb: string, to: string, ...tar: string[]): Promise<string> =>
  run('sh', ['-c', 'dpkg-deb --fsys-tarfile "$0" | tar -x --keep-directory-symlink -C "$@"', deb, to, ...tar]);

/** The archive's lists as they are now, and which kernel they have: its release, as uname will say it. */
async function lists(cache: Cache): Promise<string> {
  const lacking = ['apt-get', 'dpkg-deb', 'tar'].filter((name) => !found(name));
  if (lacking.length > 0) throw new LabProblem(`no ${lacking.join(', ')}: the set-up needs a Debian or Ubuntu system (a container of one will do)`);
  const from = mirror();
  if (!from) throw new LabProblem("apt's sources name no Debian archive: SIOV_DEBIAN_MIRROR=URL (of a folder that has dists/) says which to use");
  const keyring = keyrings.find((path) => existsSync(path));
  if (!keyring) throw new LabProblem("no keys to check Debian's packages with: apt-get install debian-archive-keyring");
  for (const folder of ['lists/partial', 'archives/partial']) mkdirSync(cache.apt(folder), { recursive: true });
  writeFileSync(cache.apt('sources.list'), [SUITE, BACKPORTS].map((suite) => `deb [signed-by=${keyring}] ${from} ${suite} main\n`).join(''));
  writeFileSync(cache.apt('status'), '');
  await apt(cache, 'update');
  const shown = await run('apt-cache', [...aptOptions(cache), 'show', '--no-all-versions', 'linux-headers-amd64']);
  const release = /^Depends:.*\blinux-headers-(\d\S*-amd64)/m.exec(shown)?.[1];
  if (!release) throw new LabProblem(`linux-headers-amd64 of ${BACKPORTS} depends on no kernel's headers: has the archive changed?`);
  writeFileSync(join(cache.folder, 'release'), release);
  return release;
}

const steps: readonly Step<Cache>[] = [
  {
    name: 'packages',
    about: `packages of Debian ${SUITE} and ${BACKPORTS}, fetched (about 400 MB) and unpacked`,
    inputs: () => [REVISION, SUITE, ...packages, ...essential, ...kernelModules],
    async run(cache) {
      const release = await lists(cache);
      const source = `linux-source-${/^\d+\.\d+/.exec(release)![0]}`;
      const kernel = ['binary', 'modules', 'headers'].map((part) => `linux-${part}-${release}`);
      // Archives of a set-up that did not finish: those that are no longer the latest go.
      await apt(cache, 'autoclean');
      await apt(cache, 'install', '-y', '--download-only', ...packages, ...essential, ...kernel, source);
      const debs = readdirSync(cache.apt('archives')).filter((name) => name.endsWith('.deb'));
      const part = `${cache.tree()}.part`;
      rmSync(part, { recursive: true, force: true });
      for (const name of ['bin', 'sbin', 'lib', 'lib64']) {
        mkdirSync(join(part, 'usr', name), { recursive: true });
        symlinkSync(`usr/${name}`, join(part, name));
      }
      for (const name of debs.filter((deb) => !partial.test(deb)))
        await unpack(cache.apt('archives', name), part, '--exclude=./usr/share/doc', '--exclude=./usr/share/man', '--exclude=./usr/share/locale');
      const deb = (prefix: string): string => cache.apt('archives', debs.find((name) => name.startsWith(`${prefix}_`))!);
      await unpack(deb(`linux-modules-${release}`), part, ...kernelModules.map((path) => `./usr/lib/modules/${release}/kernel/${path}`));
      // Maintainer scripts, which do not run here, would have made this one.
      symlinkSync('mawk', join(part, 'usr/bin/awk'));
      rmSync(cache.tree(), { recursive: true, force: true });
      renameSync(part, cache.tree());
      // The test client of the kernel is in no package as a module: its source is in the kernel's.
      mkdirSync(cache.tree('build'));
      const [xz, xzArgs] = cache.program('usr/bin/xz', '-dc');
      await run('sh', [
        '-c',
        // What comes before it in the pipe ends early, once the file is found.
        `to=$0; from=$1; shift; { dpkg-deb --fsys-tarfile "$from" | tar -x --to-stdout --wildcards '*.tar.xz' | "$@"; } 2> /dev/null |
           tar -x --wildcards --occurrence=1 --to-stdout '*/drivers/dma/dmatest.c' > "$to"; test -s "$to"`,
        ...[cache.tree('build/dmatest.c'), deb(source), xz, ...xzArgs],
      ]);
      rmSync(cache.apt('archives'), { recursive: true });
      mkdirSync(cache.apt('archives/partial'), { recursive: true });
    },
  },
  {
    name: 'modules',
    about: "dmatest and our own modules, built against the kernel's headers",
    inputs: () => filesOf('module').map((name) => readFileSync(own(`module/${name}`))),
    async run(cache) {
      for (const name of filesOf('module')) copyFileSync(own(`module/${name}`), cache.tree('build', name));
      writeFileSync(cache.tree('build/Kbuild'), `${readFileSync(own('module/Kbuild'), 'utf8')}obj-m += dmatest.o\n`);
      // Nothing of our environment: it may hold what means something to make and to kbuild.
      await chroot(cache)(['env', '-i', 'PATH=/usr/bin', 'make', '-s', '-C', `/usr/lib/modules/${cache.release}/build`, 'M=/build', 'modules']);
      rmSync(cache.modules(), { recursive: true, force: true });
      mkdirSync(cache.modules());
      for (const name of readdirSync(cache.tree('build')).filter((file) => file.endsWith('.ko')))
        copyFileSync(cache.tree('build', name), cache.modules(name));
      const kernel = cache.tree(`usr/lib/modules/${cache.release}/kernel`);
      const [xz, args] = cache.program('usr/bin/xz', '-dc');
      for (const path of (readdirSync(kernel, { recursive: true }) as string[]).filter((file) => file.endsWith('.ko.xz')))
        await run('sh', ['-c', 'to=$0; "$@" > "$to"', cache.modules(basename(path, '.xz')), xz, ...args, join(kernel, path)]);
    },
  },
  {
    name: 'initrd',
    about: "the guest's first file system",
    inputs: () => [],
    async run(cache) {
      const programs = ['usr/bin/accel-config', 'usr/bin/lspci'];
      const libraries = new Map<string, string>();
      for (const program of programs) {
        const [loader, args] = cache.program(program);
        // Lines of the loader: NAME => PATH (ADDRESS)
        for (const [, name, path] of (await run(loader, ['--list', ...args])).matchAll(/^\s*(\S+) => (\S+) \(/gm))
          libraries.set(basename(name!), path!);
      }
      const file = (path: string, from: string, executable = false): Entry => ({ path, data: readFileSync(from), executable });
      const entries: Entry[] = [
        ...['proc', 'sys', 'dev', 'tmp', 'etc'].map((path): Entry => ({ path, folder: true })),
        { path: 'dev/console', device: [5, 1] },
        { path: 'lib64', link: 'lib' },
        file('bin/busybox', cache.tree('usr/bin/busybox'), true),
        ...programs.map((path) => file(path, cache.tree(path), true)),
        ...[...libraries].map(([name, path]) => file(`lib/${name}`, path, true)),
        ...readdirSync(cache.modules()).map((name) => file(`modules/${name}`, cache.modules(name))),
      ];
      writeFileSync(cache.initrd(), cpio(entries));
    },
  },
];

/** What of this package every guest has, beside the scenario's part: it is not kept, so that each checkout has its own. */
export const guestFiles = (): Entry[] => [
  { path: 'init', data: readFileSync(own('guest/init')), executable: true },
  { path: 'guest/functions', data: readFileSync(own('guest/functions')) },
];

/** Whether everything is there. */
export const ready = (cache: Cache): boolean => open(cache.stamps(), steps, cache).length === 0;

/** Makes what is missing. Throws a LabProblem that says what this machine lacks. */
export async function setUp(cache: Cache, progress: (line: string) => void): Promise<void> {
  if (process.platform !== 'linux' || process.arch !== 'x64') throw new LabProblem('the guest needs Linux on an x86-64 processor');
  mkdirSync(cache.folder, { recursive: true });
  await alone(
    join(cache.folder, 'lock'),
    (pid) => progress(`set-up: process ${pid} is at it already; waiting for it ...`),
    () =>
      finish(cache.stamps(), steps, cache, (step, seconds) => {
        if (seconds === undefined) progress(`set-up: ${step.about} ...`);
        else progress(`set-up: ${step.name} done in ${seconds.toFixed(1)} s`);
      }),
  );
}
