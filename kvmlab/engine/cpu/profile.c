/* The machines of profile.def as constant data. */
#include "cpu.h"

#define F(NAME) [FEATURE_##NAME] = 1,
#define B(NAME) [BEHAVIOUR_##NAME] = 1,
static const struct profile profiles[] = {
#define PROFILE(id, name_, vendor_, signature_, physical, linear, brand_, generation_, features, behaviours) \
    { .name = name_, .brand = brand_, .vendor = VENDOR_##vendor_, .signature = signature_,                  \
      .physical_bits = physical, .linear_bits = linear, .generation = FEATURE_##generation_,                \
      .has = { features }, .behaves = { behaviours } },
#include "profile.def"
};

unsigned nr_profiles(void) { return sizeof profiles / sizeof *profiles; }

const struct profile *profile_at(unsigned number) { return number < nr_profiles() ? &profiles[number] : NULL; }

const struct profile *profile_find(const char *name)
{
    for (unsigned n = 0; n < nr_profiles(); n++) {
        size_t same = 0;
        while (profiles[n].name[same] && profiles[n].name[same] == name[same])
            same++;
        if (profiles[n].name[same] == name[same])
            return &profiles[n];
    }
    return NULL;
}
