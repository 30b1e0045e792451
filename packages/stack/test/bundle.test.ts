import { fileURLToPath } from 'node:url';
import { build } from 'esbuild';
import { expect, test } from 'vitest';

/** The packages whose lines are in a bundle of a program that uses one recipe. */
async function packagesIn(entry: string): Promise<string[]> {
  const result = await build({
    stdin: { contents: `export * from '${entry}';`, resolveDir: fileURLToPath(new URL('.', import.meta.url)), loader: 'ts' },
    absWorkingDir: fileURLToPath(new URL('../../..', import.meta.url)),
    bundle: true,
    write: false,
    metafile: true,
    format: 'esm',
    conditions: ['@siov/source'],
    // A browser has no Node modules: with this platform their import would not resolve.
    platform: 'browser',
  });
  const [output] = Object.values(result.metafile.outputs);
  const bundled = Object.entries(output!.inputs).filter(([, { bytesInOutput }]) => bytesInOutput > 0);
  return [...new Set(bundled.map(([path]) => /packages\/([^/]+)\//.exec(path)?.[1] ?? path))].sort();
}

test('a bundle of a stack with uacce alone has no line of VFIO, the mdev or the VMM', async () => {
  const packages = await packagesIn('@siov/stack/uacce');
  expect(packages).toEqual(expect.arrayContaining(['cpu', 'idxd-device', 'idxd-driver', 'idxd-uacce', 'iommu', 'memory', 'uacce', 'vfs']));
  for (const other of ['vfio-mdev', 'idxd-mdev', 'vmm']) expect(packages).not.toContain(other);
});
test('a bundle of a stack with the mdev has no line of uacce', async () => {
  const packages = await packagesIn('@siov/stack/mdev');
  expect(packages).toEqual(expect.arrayContaining(['vfio-mdev', 'idxd-mdev', 'vmm']));
  for (const other of ['uacce', 'idxd-uacce']) expect(packages).not.toContain(other);
});
