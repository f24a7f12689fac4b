// A policy file for tests that states every field there is, each once.
#ifndef TALARIA_ATTEST_TESTING_POLICY_SAMPLE_H_
#define TALARIA_ATTEST_TESTING_POLICY_SAMPLE_H_

#include <sstream>
#include <string>
#include <vector>

namespace talaria::attest::policy_sample {

inline std::string Hex(const char* byte, int count) {
  std::string out;
  for (int i = 0; i < count; ++i) out += byte;
  return out;
}
inline std::string List(const char* byte, int count) { return "[\"" + Hex(byte, count) + "\"]"; }

// Every field of a policy, each once, in lines that tests replace.
inline std::string Full() {
  return "[policy]\n"
         "max_age_s = 3600\n"
         "require_post_quantum = true\n"
         "crls = \"required\"\n"
         "[context]\n"
         "model_identities = " +
         List("01", 32) +
         "\n"
         "configurations = " +
         List("02", 32) +
         "\n"
         "tenant_keys = \"any\"\n"
         "profiles = [1, 2]\n"
         "min_check_vectors = 2\n"
         "allow_development = false\n"
         "[sev_snp]\n"
         "measurements = [\"" +
         Hex("03", 48) + "\", \"" + Hex("04", 48) +
         "\"]\n"
         "host_data = " +
         List("05", 32) +
         "\n"
         "id_key_digests = " +
         List("06", 48) +
         "\n"
         "author_key_digests = " +
         List("07", 48) +
         "\n"
         "family_ids = " +
         List("08", 16) +
         "\n"
         "image_ids = " +
         List("09", 16) +
         "\n"
         "chips = " +
         List("0a", 64) +
         "\n"
         "vmpl = 0\n"
         "min_guest_svn = 4294967295\n"
         "required_guest_policy = \"0x1000000\"\n"
         "allow_smt = true\n"
         "allow_cxl = false\n"
         "vlek_csp_ids = [\"CN=cloud.test\"]\n"
         "allow_provisional_firmware = false\n"
         "[[sev_snp.product]]\n"
         "name = \"Genoa\"\n"
         "min_tcb = { boot_loader = 10, tee = 1, snp = 23, microcode = 255 }\n"
         "required_platform_info = \"0x20\"\n"
         "required_launch_mitigations = \"0x3\"\n"
         "required_current_mitigations = \"0xffffffffffffffff\"\n"
         "[[sev_snp.product]]\n"
         "name = \"Turin\"\n"
         "min_tcb = { fmc = 2, boot_loader = 3, tee = 4, snp = 5, microcode = 6 }\n"
         "required_platform_info = \"0x30\"\n"
         "required_launch_mitigations = \"0x0\"\n"
         "required_current_mitigations = \"0x1\"\n"
         "[tdx]\n"
         "mrtd = " +
         List("10", 48) +
         "\n"
         "rtmr0 = " +
         List("11", 48) +
         "\n"
         "rtmr1 = " +
         List("12", 48) +
         "\n"
         "rtmr2 = " +
         List("13", 48) +
         "\n"
         "rtmr3 = " +
         List("14", 48) +
         "\n"
         "mrconfigid = \"any\"\n"
         "mrowner = " +
         List("16", 48) +
         "\n"
         "mrownerconfig = " +
         List("17", 48) +
         "\n"
         "mrservicetd = " +
         List("00", 48) +
         "\n"
         "allowed_xfam = \"0x602e7\"\n"
         "accept_septve_enabled = false\n"
         "accept_key_locker = true\n"
         "accept_perfmon = false\n"
         "accept_sw_hardening_needed = true\n"
         "min_tee_tcb_svn = \"" +
         Hex("18", 16) +
         "\"\n"
         "min_tee_tcb_svn2 = \"" +
         Hex("19", 16) +
         "\"\n"
         "fmspc = " +
         List("1a", 6) +
         "\n"
         "ppid = \"any\"\n"
         "min_tcb_evaluation_data_number = 17\n"
         "[simulated]\n"
         "measurements = " +
         List("1b", 48) + "\n";
}

// Which table each line of Full() is in, without its headers.
struct Line {
  std::string table, key, text;
  int number;
};
inline std::vector<Line> LinesOfFull() {
  std::vector<Line> out;
  std::string table;
  int number = 0, product = 0;
  std::istringstream in(Full());
  for (std::string line; std::getline(in, line);) {
    ++number;
    if (line.starts_with("[[")) {
      table = "sev_snp.product[" + std::to_string(product++) + "]";
    } else if (line.starts_with("[")) {
      table = line.substr(1, line.size() - 2);
    } else {
      out.push_back({table, line.substr(0, line.find(' ')), line, number});
    }
  }
  return out;
}

}  // namespace talaria::attest::policy_sample

#endif  // TALARIA_ATTEST_TESTING_POLICY_SAMPLE_H_
