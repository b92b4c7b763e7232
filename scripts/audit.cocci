// SPDX-License-Identifier: GPL-2.0-only
//
// Who has a say in the type of a default domain: drivers with def_domain_type(), with a
// static default_domain, those that can defer invalidations; and which functions compare
// with IOMMU_DOMAIN_DMA, or ask for either type. Prints FILE and what it has, see
// scripts/audit.
virtual report

@answers@
identifier ops, fn;
position p;
@@
struct iommu_ops ops = { ..., .def_domain_type = \(fn@p\|&fn@p\), ... };

@script:python@
p << answers.p;
fn << answers.fn;
@@
print("%s def_domain_type" % p[0].file)

@fixed@
identifier ops;
expression E;
position p;
@@
struct iommu_ops ops = { ..., .default_domain = E@p, ... };

@script:python@
p << fixed.p;
@@
print("%s default_domain" % p[0].file)

@capable@
position p;
@@
IOMMU_CAP_DEFERRED_FLUSH@p

@script:python@
p << capable.p;
@@
print("%s IOMMU_CAP_DEFERRED_FLUSH" % p[0].file)

@table@
identifier init =~ "^pt_iommu_.*_init$";
position p;
@@
init@p(...)

@script:python@
p << table.p;
@@
print("%s iommupt" % p[0].file)

@compares@
expression E;
position p;
@@
(
E == IOMMU_DOMAIN_DMA@p
|
E != IOMMU_DOMAIN_DMA@p
)

@script:python@
p << compares.p;
@@
print("%s compares %s" % (p[0].file, p[0].current_element))

@cases@
expression E;
position p;
@@
switch (E) { case IOMMU_DOMAIN_DMA@p: ... }

@script:python@
p << cases.p;
@@
print("%s compares %s" % (p[0].file, p[0].current_element))

@either@
position p;
@@
iommu_is_dma_domain@p(...)

@script:python@
p << either.p;
@@
print("%s either %s" % (p[0].file, p[0].current_element))
