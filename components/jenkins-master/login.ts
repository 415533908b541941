import type * as pulumi from "@pulumi/pulumi";

/**
 * Sign-on through an OpenID Connect provider, with the plugin oic-auth. Keys as in its documentation:
 * https://github.com/jenkinsci/oic-auth-plugin/blob/master/docs/configuration/README.md
 */
export interface OidcLogin {
  /** The provider's discovery document, such as https://sso.example.com/.well-known/openid-configuration */
  wellKnownUrl: string;
  clientId: string;
  /** Kept secret. */
  clientSecret: pulumi.Input<string>;
  /** Claim that becomes the user's name in Jenkins. */
  userNameField: string;
  /** Claim with the person's own name; "" for none. */
  fullNameField: string;
  /** Claim with the mail address; "" for none. */
  emailField: string;
  /** Claim with the list of groups; "" for none. */
  groupsField: string;
  /** Scopes asked for, separated by blanks; "" for all that the provider offers. */
  scopes: string;
  /** Whether a logout from Jenkins ends the provider's session as well. */
  logoutFromProvider: boolean;
  /** Whether the local administrator may log in past the provider. */
  escapeHatch: boolean;
}

/**
 * Sign-on through a directory, with the plugin ldap. Keys as in its own tests:
 * https://github.com/jenkinsci/ldap-plugin/blob/master/src/test/resources/jenkins/security/plugins/ldap/casc.yml
 */
export interface LdapLogin {
  /** Servers as host, host:port or ldaps://host, separated by blanks: the second is asked where the first does not answer. */
  server: string;
  /** Where searches start, such as dc=example,dc=com */
  rootDN: string;
  /** Who searches; "" for anonymous searches. */
  managerDN: string;
  /** Kept secret; undefined with anonymous searches. */
  managerPassword?: pulumi.Input<string>;
  /** Below rootDN; "" for rootDN itself. */
  userSearchBase: string;
  /** Filter that finds a person, {0} being the name that was typed. */
  userSearch: string;
  /** Below rootDN; "" for rootDN itself. */
  groupSearchBase: string;
  /** Filter that finds a group by its name {0}; "" for the plugin's own. */
  groupSearchFilter: string;
  /** Filter that finds the groups of a person, {0} being the DN; "" for the plugin's own. */
  groupMembershipFilter: string;
  /** Attribute of a person that lists the groups, such as memberOf; used instead of a search. "" for none. */
  groupMembershipAttribute: string;
  displayNameAttribute: string;
  mailAttribute: string;
}

/** Where people's names and passwords are checked. */
export type Login = { kind: "oidc"; oidc: OidcLogin } | { kind: "ldap"; ldap: LdapLogin };

/** What someone may do, from most to least. */
export const roles = ["admin", "developer", "reader"] as const;
export type Role = (typeof roles)[number];

/** Who has a role. The group `authenticated` is everybody who is logged in, `anonymous` (a user) everybody else. */
export interface Members {
  groups: string[];
  users: string[];
}

/** Who may do what; a role that is missing has nobody. */
export type Rights = Partial<Record<Role, Members>>;

/** Group of whoever comes through the escape hatch: a user of the administrator's name at the provider is somebody else. */
export const escapeHatchGroup = "build-platform-escape-hatch";
/** Secret with what the login itself needs to know, one key for each of the references in the document. */
export const loginSecretName = "jenkins-login";
/** Key of that Secret, and the name under which JCasC documents refer to it. */
export const secretKeys = { oidc: "login-client-secret", ldap: "login-manager-password" } as const;

/** Permissions of each role, as matrix-auth names them: https://plugins.jenkins.io/matrix-auth/ */
export const permissions: Record<Role, string[]> = {
  admin: ["Overall/Administer"],
  developer: ["Job/Build", "Job/Cancel", "Job/Discover", "Job/Read", "Job/Workspace", "Overall/Read", "View/Read"],
  reader: ["Job/Discover", "Job/Read", "Overall/Read", "View/Read"],
};

/** Plugins that the controller needs beyond the usual ones. */
export function loginPlugins(login: Login | undefined, rights: Rights | undefined): string[] {
  return [...(rights ? ["matrix-auth"] : []), ...(login ? [login.kind === "oidc" ? "oic-auth" : "ldap"] : [])].sort();
}

/** The content of Secret `jenkins-login`; undefined where the login needs none. */
export function loginSecrets(login: Login | undefined): Record<string, pulumi.Input<string>> | undefined {
  if (login?.kind === "oidc") return { [secretKeys.oidc]: login.oidc.clientSecret };
  if (login?.ldap.managerPassword !== undefined) return { [secretKeys.ldap]: login.ldap.managerPassword };
  return undefined;
}

/** JCasC reads `${name}` as a reference; a caret makes it literal text. */
export function escapeReferences(text: string): string {
  return text.replace(/\$\{/g, "^${");
}

/** The keys whose value is not "", their text literal. */
function given(texts: Record<string, string>): Record<string, string> {
  return Object.fromEntries(Object.entries(texts).flatMap(([key, text]) => (text === "" ? [] : [[key, escapeReferences(text)]])));
}

/** `jenkins.securityRealm`: one local administrator, or the login. Secrets are references to files, never values. */
export function securityRealm(login?: Login): object {
  if (login?.kind === "oidc") {
    const { oidc } = login;
    return {
      oic: {
        clientId: escapeReferences(oidc.clientId),
        clientSecret: `\${${secretKeys.oidc}}`,
        serverConfiguration: { wellKnown: given({ wellKnownOpenIDConfigurationUrl: oidc.wellKnownUrl, scopesOverride: oidc.scopes }) },
        ...given({ userNameField: oidc.userNameField, fullNameFieldName: oidc.fullNameField, emailFieldName: oidc.emailField, groupsFieldName: oidc.groupsField }),
        logoutFromOpenidProvider: oidc.logoutFromProvider,
        properties: ["pkce", ...(oidc.escapeHatch ? [{ escapeHatch: { username: "${admin-user}", secret: "${admin-password}", group: escapeHatchGroup } }] : [])],
      },
    };
  }
  if (login?.kind === "ldap") {
    const { ldap } = login;
    const strategy = ldap.groupMembershipAttribute
      ? { fromUserRecord: given({ attributeName: ldap.groupMembershipAttribute }) }
      : ldap.groupMembershipFilter && { fromGroupSearch: given({ filter: ldap.groupMembershipFilter }) };
    return {
      ldap: {
        configurations: [
          {
            ...given({ server: ldap.server, rootDN: ldap.rootDN, managerDN: ldap.managerDN }),
            ...(ldap.managerPassword !== undefined && { managerPasswordSecret: `\${${secretKeys.ldap}}` }),
            ...given({ userSearchBase: ldap.userSearchBase, userSearch: ldap.userSearch, groupSearchBase: ldap.groupSearchBase, groupSearchFilter: ldap.groupSearchFilter }),
            ...(strategy && { groupMembershipStrategy: strategy }),
            ...given({ displayNameAttributeName: ldap.displayNameAttribute, mailAddressAttributeName: ldap.mailAttribute }),
          },
        ],
        // Of the directory's answers, so that a slow one is not asked at every click: entries, and seconds they are believed.
        cache: { size: 1000, ttl: 300 },
      },
    };
  }
  return {
    local: {
      allowsSignup: false,
      enableCaptcha: false,
      users: [{ id: "${admin-user}", name: "Administrator", password: "${admin-password}" }],
    },
  };
}

/**
 * `jenkins.authorizationStrategy`: who may do what. Without rights only the local administrator exists, who may do anything.
 * @param foreign whether a realm of the site's own asks for names and passwords: its user of the administrator's name is somebody else
 */
export function authorizationStrategy(rights: Rights | undefined, login: Login | undefined, foreign = false): object {
  if (!rights) return { loggedInUsersCanDoAnything: { allowAnonymousRead: false } };
  const own = foreign ? { users: [], groups: [] } : login === undefined ? { users: ["${admin-user}"], groups: [] } : { users: [], groups: login.kind === "oidc" && login.oidc.escapeHatch ? [escapeHatchGroup] : [] };
  const held = new Map<string, { kind: "user" | "group"; name: string; permissions: Set<string> }>();
  const grant = (kind: "user" | "group", name: string, role: Role) => {
    const entry = held.get(`${kind}:${name}`) ?? { kind, name, permissions: new Set() };
    permissions[role].forEach((permission) => entry.permissions.add(permission));
    held.set(`${kind}:${name}`, entry);
  };
  own.users.forEach((name) => grant("user", name, "admin"));
  own.groups.forEach((name) => grant("group", name, "admin"));
  for (const role of roles) {
    rights[role]?.groups.forEach((name) => grant("group", escapeReferences(name), role));
    rights[role]?.users.forEach((name) => grant("user", escapeReferences(name), role));
  }
  return { globalMatrix: { entries: [...held.values()].map(({ kind, name, permissions: names }) => ({ [kind]: { name, permissions: [...names].sort() } })) } };
}
