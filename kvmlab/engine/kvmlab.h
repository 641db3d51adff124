#ifndef KVMLAB_H
#define KVMLAB_H

const char *kl_version(void);

#endif
