/**
 * The import table of the architecture: which package's `src` may import which, and only through its entry points.
 * Tests may use any package. Facts-only entry points (`spec`, `uapi`) may be imported by every package.
 */
const table = {
  layout: [],
  memory: ['layout'],
  cpu: ['layout'],
  vfs: ['layout'],
  'pci-core': ['layout'],
  iommu: ['layout'],
  'ims-irq': ['layout'],
  'idxd-device': ['layout', 'pci-core'],
  'idxd-driver': ['layout', 'idxd-device'],
  'vfio-mdev': ['layout'],
  uacce: ['layout'],
  'idxd-mdev': ['layout', 'idxd-driver', 'vfio-mdev', 'pci-core', 'idxd-device'],
  'idxd-uacce': ['layout', 'idxd-driver', 'uacce'],
  vmm: ['layout', 'pci-core'],
  'vfio-user': ['layout'],
  stack: [
    'layout',
    'memory',
    'cpu',
    'vfs',
    'pci-core',
    'iommu',
    'ims-irq',
    'idxd-device',
    'idxd-driver',
    'vfio-mdev',
    'uacce',
    'idxd-mdev',
    'idxd-uacce',
    'vmm',
  ],
};
const names = Object.keys(table);
const facts = 'packages/(idxd-device|iommu)/src/spec/|packages/(vfio-mdev|uacce)/src/uapi\\.ts$';

module.exports = {
  forbidden: [
    ...names.map((name) => ({
      name: `imports-of-${name}`,
      comment: `@siov/${name} may import ${table[name].map((d) => '@siov/' + d).join(', ') || 'nothing'} at run time`,
      severity: 'error',
      from: { path: `^packages/${name}/src/` },
      to: { path: '^packages/', pathNot: [`^packages/${name}/`, ...table[name].map((d) => `^packages/${d}/`), facts] },
    })),
    {
      name: 'entry-points-only',
      comment: 'another package is reached by its name, never by a path into its folder',
      severity: 'error',
      from: { path: '^(packages|tools)/([^/]+)/(src|bin|example)/' },
      to: { path: '^(packages|tools)/', pathNot: ['^$1/$2/'], dependencyTypes: ['local'] },
    },
    {
      name: 'no-cycles',
      severity: 'error',
      from: { path: '^packages/[^/]+/src' },
      to: { circular: true, viaOnly: { dependencyTypesNot: ['type-only'] } },
    },
    {
      name: 'no-node-in-core',
      comment: 'core packages run in a browser too: no Node module',
      severity: 'error',
      from: { path: '^packages/(?!vfio-user)[^/]+/src/' },
      to: { dependencyTypes: ['core'] },
    },
    { name: 'resolvable', severity: 'error', from: { path: '^packages/[^/]+/src' }, to: { couldNotResolve: true } },
  ],
  options: {
    doNotFollow: { path: 'node_modules' },
    exclude: { path: '(^|/)(dist|node_modules)/' },
    tsPreCompilationDeps: true,
    tsConfig: { fileName: 'tsconfig.base.json' },
    enhancedResolveOptions: {
      conditionNames: ['@siov/source', 'import', 'types', 'default'],
      exportsFields: ['exports'],
    },
  },
};
